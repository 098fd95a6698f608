// What a page does by itself: the live stream, dialogs, the menu, copying, toasts. Everything works without it, only by hand.
"use strict";

const byId = (id) => document.getElementById(id);

// -- live: one stream per page, closed while nobody looks -------------------------------------------------------------

let stream = null;
let again = 0;

function isTheirs(name, node) {
  // What the person did is theirs: what is unfolded, ticked, typed. A hidden field is the server's, but for the token.
  if (name === "open") return node.tagName === "DETAILS";
  if (name !== "checked" && name !== "value") return false;
  return node.type === "hidden" ? node.name === "csrf_token" : ["INPUT", "SELECT", "TEXTAREA"].includes(node.tagName);
}

function put(target, html) {
  const fresh = `<div id="live" data-live>${html}</div>`;
  if (!window.Idiomorph) { target.innerHTML = html; return; }
  Idiomorph.morph(target, fresh, {
    morphStyle: "outerHTML",
    ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed: (old) => !(old.nodeType === 1 && (old.hasAttribute("data-keep") || old.tagName === "DIALOG")),
      beforeAttributeUpdated: (name, node) => !isTheirs(name, node),
    },
  });
  if (window.htmx) htmx.process(byId("live"));
}

async function refresh() {
  // After a click, without waiting for the stream's next turn.
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    if (next && byId("live")) put(byId("live"), next.innerHTML);
    document.dispatchEvent(new Event("live"));
  } catch { banner("gone"); }
}

function banner(kind) {
  const box = byId("banner");
  if (!box) return;
  box.hidden = !kind;
  box.textContent = kind ? box.dataset[kind] : "";
  if (kind === "out") {
    const link = document.createElement("a");
    link.href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
    link.textContent = box.dataset.in;
    box.append(" ", link);
  }
  byId("live")?.classList.toggle("stale", Boolean(kind));
}

async function whyGone() {
  // The stream only says that it ended. A plain request tells whether we are signed out or the server is away.
  try {
    const answer = await fetch(location.href, { cache: "no-store", headers: { "X-Asks": "why" } });
    if (answer.redirected && new URL(answer.url).pathname.startsWith("/login")) return "out";
    return answer.status === 401 ? "out" : "gone";
  } catch { return "gone"; }
}

function listen() {
  clearTimeout(again);
  if (stream || document.hidden || !byId("live")?.hasAttribute("data-live")) return;
  stream = new EventSource(location.pathname + location.search);
  stream.onopen = () => banner("");
  stream.onmessage = (event) => {
    banner("");
    if (document.querySelector("[data-hold-live]:hover")) return; // somebody is about to click there
    put(byId("live"), event.data);
    document.dispatchEvent(new Event("live"));
  };
  stream.onerror = async () => {
    if (stream?.readyState !== EventSource.CLOSED) { banner("gone"); return; } // the browser tries again by itself
    deafen();
    const why = await whyGone();
    banner(why);
    if (why !== "out") again = setTimeout(listen, 5000);
  };
}

function deafen() {
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? deafen() : listen()));
addEventListener("pagehide", deafen);
addEventListener("pageshow", listen);

document.addEventListener("click", (event) => {
  // The same page a little different: its live part follows the address, nothing is loaded anew.
  const link = event.target.closest("a[data-here]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.replaceState(null, "", link.href);
  deafen();
  refresh().then(listen);
});

// -- toasts -----------------------------------------------------------------------------------------------------------

function toast(text, kind = "good", place = byId("toasts")) {
  const box = document.createElement("div");
  box.className = `toast-box ${kind}`;
  box.textContent = text;
  place?.append(box);
  setTimeout(() => box.remove(), kind === "good" ? 4000 : 12000);
}

// -- htmx: the token on every request, and errors that are seen ------------------------------------------------------

document.addEventListener("htmx:configRequest", (event) => {
  const token = document.querySelector('meta[name="csrf-token"]');
  if (token) event.detail.headers["X-CSRF-Token"] = token.content;
});
document.addEventListener("submit", (event) => {
  // A form that came with the stream, sent without htmx.
  const token = document.querySelector('meta[name="csrf-token"]');
  const field = event.target.elements.csrf_token;
  if (token && field) field.value = token.content;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (xhr.status === 401 || (xhr.responseURL && new URL(xhr.responseURL).pathname.startsWith("/login"))) {
    event.detail.shouldSwap = false;
    banner("out");
    return;
  }
  if (xhr.status >= 400) {
    const kind = xhr.getResponseHeader("Content-Type") || "";
    if (kind.startsWith("text/html") && xhr.getResponseHeader("X-Swap")) { event.detail.shouldSwap = true; return; }
    let text = xhr.responseText || xhr.statusText;
    try { text = JSON.parse(text).error.message; } catch { /* plain text */ }
    // What is wrong with a dialog is said inside it: behind it nobody sees it.
    const dialog = event.detail.elt.closest("dialog[open]");
    dialog?.querySelector(":scope > .toast-box")?.remove();
    toast(text.slice(0, 600), "bad", dialog || undefined);
  }
});
document.addEventListener("htmx:sendError", () => banner("gone"));
document.addEventListener("said", ({ detail }) => { // on the next page
  sessionStorage.setItem("said", JSON.stringify({ text: detail.text, kind: detail.kind }));
});
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.kind));
document.addEventListener("done", () => { byId("dialog").close(); refresh(); });
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "dialog" && byId("dialog").innerHTML.trim()) {
    const dialog = byId("dialog");
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("[autofocus], input:not([type=hidden]), textarea")?.focus();
  }
  document.dispatchEvent(new Event("live"));
});

// -- clicks -----------------------------------------------------------------------------------------------------------

async function copy(text, said) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(said || text);
}

document.addEventListener("click", (event) => {
  const menu = event.target.closest("[data-menu]");
  if (menu) {
    const open = menu.getAttribute("aria-expanded") !== "true";
    menu.setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("menu-open", open);
  }
  const copied = event.target.closest("[data-copy]");
  if (copied) {
    const source = copied.dataset.copy.startsWith("#") ? document.querySelector(copied.dataset.copy)?.textContent : copied.dataset.copy;
    copy(source || "", copied.dataset.said);
  }
  if (event.target.closest("[data-close]") || event.target === byId("dialog")) byId("dialog").close();
  const ask = event.target.closest("[data-ask]");
  if (ask && !confirm(ask.dataset.ask)) event.preventDefault();
  const all = event.target.closest("[data-all]");
  if (all) for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
});
document.addEventListener("toggle", (event) => {
  // One menu at a time.
  if (!event.target.matches?.("details.drop") || !event.target.open) return;
  for (const other of document.querySelectorAll("details.drop[open]")) if (other !== event.target) other.open = false;
}, true);
document.addEventListener("click", (event) => {
  for (const drop of document.querySelectorAll("details.drop[open]")) if (!drop.contains(event.target)) drop.open = false;
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing) {
    const find = document.querySelector("[data-find]");
    if (find) { event.preventDefault(); find.focus(); find.select?.(); } else { location.href = "/search"; }
  }
  if (event.key === "Escape") for (const drop of document.querySelectorAll("details.drop[open]")) drop.open = false;
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-go-topic]")) location.href = `/console?topic=${encodeURIComponent(event.target.value)}`;
  if (event.target.matches("select[data-go]")) location.href = event.target.value;
  if (event.target.matches("[data-submit]") && !window.htmx) event.target.form.submit();
});

// -- the form of a queue: only what this way of running needs ---------------------------------------------------------

function onlyOfRun() {
  for (const topic of document.querySelectorAll("[data-topic]")) {
    const select = topic.querySelector("[data-run]");
    const run = select?.value || select?.options[0].textContent.replace(/^.*[:：]\s*/, "");
    for (const field of topic.querySelectorAll("[data-only]")) field.hidden = field.dataset.only !== run;
    for (const field of topic.querySelectorAll("[data-without]")) field.hidden = field.dataset.without === run;
  }
}
document.addEventListener("change", (event) => { if (event.target.matches("[data-run]")) onlyOfRun(); });
onlyOfRun();

// -- JSON helper of the test console ---------------------------------------------------------------------------------

function lineAndColumn(text, error) {
  // Browsers say where in their own words; all of them say a position or a line.
  const place = /line (\d+) column (\d+)/.exec(error.message);
  if (place) return { line: place[1], column: place[2] };
  const at = /position (\d+)/.exec(error.message);
  const before = text.slice(0, at ? Number(at[1]) : text.length).split("\n");
  return { line: before.length, column: before.at(-1).length + 1 };
}

function layOut(text, indent) {
  // Only blanks change: JavaScript would round the numbers that are ids.
  let made = "", depth = 0;
  const line = () => (indent ? "\n" + " ".repeat(indent * depth) : "");
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    if (token === "{" || token === "[") { depth += 1; made += token + line(); }
    else if (token === "}" || token === "]") { depth -= 1; made = made.replace(/\s+$/, ""); made += (made.endsWith(token === "}" ? "{" : "[") ? "" : line()) + token; }
    else if (token === ",") made += token + line();
    else if (token === ":") made += indent ? ": " : ":";
    else made += token;
  }
  return made;
}

function helpJson(area) {
  const help = document.querySelector(area.dataset.jsonHelp);
  const encoded = area.form.elements.encoding?.value;
  const text = area.value;
  const n = new TextEncoder().encode(text).length;
  let said = area.dataset.plain.replace("{n}", n);
  let wrong = false;
  if (encoded) said = area.dataset.bytes;
  else if (text.trim()) {
    try { JSON.parse(text); said = area.dataset.good.replace("{n}", n); } catch (error) {
      wrong = /^\s*[[{]/.test(text); // what does not begin as JSON is not meant to be any
      const place = lineAndColumn(text, error);
      if (wrong) said = area.dataset.bad.replace("{line}", place.line).replace("{column}", place.column);
    }
  }
  help.textContent = said;
  help.classList.toggle("bad-text", wrong);
}

document.addEventListener("input", (event) => { if (event.target.matches("[data-json-help]")) helpJson(event.target); });
for (const area of document.querySelectorAll("[data-json-help]")) helpJson(area);
document.addEventListener("click", (event) => {
  const tidy = event.target.closest("[data-tidy]");
  if (!tidy) return;
  const area = document.querySelector(tidy.dataset.tidy);
  try {
    JSON.parse(area.value);
    area.value = layOut(area.value, "tight" in tidy.dataset ? 0 : 2);
    helpJson(area);
  } catch (error) { toast(error.message, "bad"); }
});
document.addEventListener("click", (event) => {
  const use = event.target.closest("[data-use]");
  if (!use) return;
  const area = document.querySelector(use.dataset.into);
  area.value = use.dataset.use;
  if (area.form.elements.encoding) area.form.elements.encoding.value = use.dataset.encoding || "";
  helpJson(area);
  area.focus();
});

const said = JSON.parse(sessionStorage.getItem("said") || "null");
sessionStorage.removeItem("said");
if (said) toast(said.text, said.kind);
listen();
