// Replaces <main> by what the server renders now. A page that is not looked at is not refreshed.
"use strict";

async function refresh() {
  const main = document.getElementById("live");
  if (!document.hidden) {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = fresh.title;
      const next = document.adoptNode(fresh.getElementById("live"));
      const scrolled = [...main.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      main.replaceWith(next);
      next.querySelectorAll(".scroll").forEach((box, i) => { box.scrollLeft = scrolled[i] || 0; });
    } catch {
      main.classList.add("stale"); // the sidecar is away: what is shown is old
    }
  }
  setTimeout(refresh, Number(main.dataset.every));
}

setTimeout(refresh, 2000);
