"""Logins against a real slapd of our own, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pepperbus.accounts import directory
from pepperbus.accounts.model import HOST_ROLES, Role
from pepperbus.config.load import load
from pepperbus.config.secret import Secret
from pepperbus.config.signon_settings import Ldap
from pepperbus.errors import NotReachable
from tests.fixtures.ports import free_port
from tests.unit.test_web import Place

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec")
MODULES = next((path for path in ("/usr/lib/ldap", "/usr/libexec/openldap") if Path(path).is_dir()), "")
BASE = "dc=example,dc=com"
SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath @MODULES@
moduleload back_mdb
moduleload memberof
pidfile @DIR@/pid
TLSCertificateFile @DIR@/cert.pem
TLSCertificateKeyFile @DIR@/key.pem
database mdb
maxsize 10485760
suffix "dc=example,dc=com"
rootdn "cn=root,dc=example,dc=com"
rootpw root-secret
directory @DIR@/db
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=root,dc=example,dc=com" write by users read by * none
"""
PEOPLE = f"""\
dn: {BASE}
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: uid=wei,{BASE}
objectClass: inetOrgPerson
uid: wei
cn: Wei
sn: Wei
userPassword: the-password-of-wei

dn: uid=bob,{BASE}
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Bob
userPassword: the-password-of-bob

dn: cn=ops,{BASE}
objectClass: groupOfNames
cn: ops
member: uid=wei,{BASE}
"""


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ldap]:
    """A directory with wei (of the group ops) and bob, reached with STARTTLS."""
    if not SLAPD or not MODULES:
        pytest.skip("no slapd on this machine (Debian: slapd)")
    here = tmp_path_factory.mktemp("slapd")
    (here / "db").mkdir()
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        [*words.split(), "-keyout", here / "key.pem", "-out", here / "cert.pem"], check=True, capture_output=True
    )
    conf = here / "slapd.conf"
    conf.write_text(SLAPD_CONF.replace("@DIR@", str(here)).replace("@MODULES@", MODULES))
    (here / "people.ldif").write_text(PEOPLE)
    port = free_port()
    log = (here / "log").open("wb")
    process = subprocess.Popen(
        [SLAPD, "-d", "0", "-f", conf, "-h", f"ldap://127.0.0.1:{port}"],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )
    try:
        _until_it_listens(process, port, here / "log")
        _fill(port)
        yield Ldap(
            f"ldap://localhost:{port}",
            True,
            here / "cert.pem",
            f"cn=root,{BASE}",
            Secret("root-secret"),
            BASE,
            roles=((f"cn=ops,{BASE}", ("shop=operator",)),),
        )
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)


def _fill(port: int) -> None:
    import ldap3

    server = ldap3.Server(f"ldap://127.0.0.1:{port}", get_info=ldap3.NONE)
    with ldap3.Connection(server, f"cn=root,{BASE}", "root-secret", auto_bind=True) as connection:
        for block in PEOPLE.strip().split("\n\n"):
            pairs = [line.split(": ", 1) for line in block.splitlines()]
            attributes: dict[str, Any] = {}
            for key, value in pairs[1:]:
                attributes.setdefault(key, []).append(value)
            assert connection.add(pairs[0][1], attributes.pop("objectClass"), attributes), connection.result


def test_name_and_password_are_the_directorys(slapd: Ldap) -> None:
    assert directory.ask(slapd, "wei", "the-password-of-wei") == (f"uid=wei,{BASE}", [f"cn=ops,{BASE}"])
    assert directory.ask(slapd, "bob", "the-password-of-bob") == (f"uid=bob,{BASE}", [])


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("wei", "wrong"),
        ("wei", ""),
        ("", "x"),
        ("nobody", "the-password-of-wei"),
        ("w*", "the-password-of-wei"),
        ("*", "the-password-of-wei"),
        ("wei)(uid=*", "the-password-of-wei"),
        ("x)(|(uid=wei)", "the-password-of-wei"),
        (f"uid=wei,{BASE}", "the-password-of-wei"),
    ],
)
def test_what_does_not_let_in(slapd: Ldap, name: str, password: str) -> None:
    assert directory.ask(slapd, name, password) is None


def changed(ldap: Ldap, **keys: Any) -> Ldap:
    from dataclasses import replace

    return replace(ldap, **keys)


def test_a_directory_that_is_not_the_one_we_know_gets_no_password(slapd: Ldap) -> None:
    for other in (
        changed(slapd, ca=None),
        changed(slapd, url=slapd.url.replace("localhost", "127.0.0.1")),
        changed(slapd, bind_password=Secret("wrong")),
        changed(slapd, url=f"ldap://localhost:{free_port()}"),
    ):
        with pytest.raises(NotReachable):
            directory.ask(other, "wei", "the-password-of-wei")


def test_a_person_of_the_directory_logs_in_and_gets_its_groups_roles(slapd: Ldap, tmp_path: Path) -> None:
    place = Place(tmp_path)
    section = (
        f'[ldap]\n    url = {slapd.url}\n    ca = {slapd.ca}\n    bind_dn = "cn=root,{BASE}"\n'
        f'    bind_password = root-secret\n    base = "{BASE}"\n    [[roles]]\n'
        f'        "cn=ops,{BASE}" = shop=operator, bank=viewer\n[storages]\n'
    )
    path = tmp_path / "node.conf"
    path.write_text(path.read_text().replace("[storages]\n", section))
    place.office.take(load(path, {}))
    browser = place.app.test_client()

    def login(name: str, password: str) -> int:
        form = {"name": name, "password": password}
        return browser.post("/login", data=form, headers={"Origin": "http://localhost"}).status_code

    assert login("wei", "wrong") == 401
    assert login("bob", "the-password-of-bob") == 401, "in no group"
    assert login("wei", "the-password-of-wei") == 303
    person = browser.get("/api/v1/session").get_json()
    assert (person["name"], person["roles"]) == ("wei", {"shop": "operator", "bank": "viewer"})
    assert place.office.accounts.account("wei").roles == {"shop": Role.OPERATOR, "bank": Role.VIEWER}
    assert place.office.accounts.hash_of("wei") == ""
    place.office.accounts.add("carl", "", HOST_ROLES)
    assert login("carl", "") == 401
    place.office.close()
