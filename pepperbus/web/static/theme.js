// "As the system": before the first paint, and again when the system changes.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js"); // the menu of a phone folds only where something can unfold it
  if (root.dataset.theme !== "auto") return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => { root.dataset.bsTheme = dark.matches ? "dark" : "light"; };
  dark.addEventListener("change", follow);
  follow();
})();
