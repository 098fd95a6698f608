"""The Flask application: which part answers what. Floor 5."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from pepperbus import errors
from pepperbus.accounts.model import EVERYWHERE, Right
from pepperbus.log import Log
from pepperbus.operations.rights import require
from pepperbus.web import api, failures, frame, guard, health, legacy, logins, pages, pushing
from pepperbus.web.desk import Desk
from pepperbus.web.metrics import CONTENT_TYPE, Exposition

MOST_BODY = 32 << 20


def create_app(desk: Desk, log: Log) -> Flask:
    """The whole sidecar as a WSGI application; `desk.monitor.run` must be running for rates."""
    app = Flask("pepperbus.web", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY
    exposition = Exposition(desk)

    @app.before_request
    def check() -> Response | None:
        forms, jobs = legacy.named(request.path) is not None, pushing.named(request.path)
        reason = guard.refusal(request, desk.base.config, forms=forms, any_type=jobs)
        return failures.error(403, "forbidden", reason) if reason else None

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        reasons = health.not_ready(desk.base)
        if not (logins.is_direct(request) or logins.current_actor()):
            reasons = ["not ready"] if reasons else []  # why is nobody's business who cannot log in
        return Response("\n".join(reasons or ["ready"]) + "\n", 503 if reasons else 200, mimetype="text/plain")

    def metrics() -> Response:
        if not logins.is_direct(request):
            require(desk.office, Right.VIEW, EVERYWHERE, "read the metrics")
        return Response(exposition.text(), content_type=CONTENT_TYPE)

    legacy.install(app, desk)
    pushing.install(app, desk, log)
    logins.install(app, desk, log)
    app.add_url_rule("/metrics", "metrics", metrics)
    app.add_url_rule("/global/metrics", "global_metrics", metrics)
    app.register_blueprint(api.blueprint(desk))
    frame.install(app)
    pages.install(app, desk)

    @app.errorhandler(HTTPException)
    def http_error(failure: HTTPException) -> Any:
        if pages.answers.wants_page():
            return pages.answers.http_error(failure)
        code = (failure.name or "error").lower().replace(" ", "_")
        return failures.error(failure.code or 500, code, failure.description or "")

    @app.errorhandler(errors.PepperbusError)
    def refused(failure: errors.PepperbusError) -> Response:
        return failures.told(failure)

    @app.errorhandler(Exception)
    def bug(failure: Exception) -> Response:
        log.error("web_bug", f"{type(failure).__name__}: {failure}", path=request.path)
        return failures.error(500, "bug", "the sidecar failed at this; its log says more")

    app.after_request(guard.harden)
    return app
