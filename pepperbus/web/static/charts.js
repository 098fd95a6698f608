// Charts: every [data-chart] asks its address for columns of numbers and draws them with uPlot; newer points are added.
"use strict";

const charts = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888";
}

const WORDS = document.documentElement.lang.startsWith("zh") ? { s: "秒", min: "分钟" } : { s: "s", min: "min" };
const UNITS = {
  rate: (v) => (v == null ? "–" : v < 10 ? v.toFixed(2).replace(/\.?0+$/, "") : Math.round(v).toLocaleString("en").replaceAll(",", "\u202f")),
  count: (v) => (v == null ? "–" : Math.round(v).toLocaleString("en").replaceAll(",", "\u202f")),
  time: (v) => {
    if (v == null) return "–";
    if (!v) return "0";
    if (v < 0.001) return `${Math.round(v * 1e6)} µs`;
    if (v < 1) return `${Number((v * 1e3).toPrecision(3))} ms`;
    return v < 120 ? `${Number(v.toPrecision(3))} ${WORDS.s}` : `${Math.round(v / 60)} ${WORDS.min}`;
  },
};

function draw(box, answer) {
  const unit = UNITS[box.dataset.unit] || UNITS.count;
  const known = charts.get(box);
  if (known && known.labels === answer.series.map((s) => s.label).join()) {
    known.marks = answer.marks || [];
    known.plot.setData(answer.data);
    return;
  }
  known?.plot.destroy();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const two = (n) => String(n).padStart(2, "0");
  const clock = (s) => { const d = new Date(s * 1000); return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`; };
  const day = (s) => { const d = new Date(s * 1000); return `${two(d.getMonth() + 1)}-${two(d.getDate())}`; };
  const drawn = { labels: answer.series.map((s) => s.label).join(), marks: answer.marks || [] };
  drawn.plot = new uPlot({
    hooks: { draw: [(u) => drawMarks(u, drawn.marks)], setCursor: [(u) => sayMark(u, box, drawn.marks)] },
    width: box.clientWidth || 300,
    height: Number(box.dataset.height || 180),
    cursor: { sync: { key: box.dataset.sync || "page" }, drag: { x: true, y: false } },
    legend: { live: true },
    scales: { x: { time: true }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [
      { ...axis, values: (u, splits, index, space, step) => splits.map((s) => (step >= 86400 ? day(s) : step >= 60 ? clock(s).slice(0, 5) : clock(s))) },
      { ...axis, size: 64, values: (u, splits) => splits.map((v) => (unit === UNITS.count && !Number.isInteger(v) ? "" : unit(v))) },
    ],
    series: [
      { value: (u, v) => (v == null ? "" : `${day(v)} ${clock(v)}`), label: answer.time || "" },
      ...answer.series.map((s) => ({
        label: s.label, stroke: colour(`--${s.colour}`), width: 1.75, points: { show: false }, spanGaps: false,
        fill: s.fill ? `color-mix(in srgb, ${colour(`--${s.colour}`)} 14%, transparent)` : undefined, value: (u, v) => unit(v),
      })),
    ],
  }, answer.data, box);
  charts.set(box, drawn);
}

function drawMarks(u, marks) {
  // Dashed lines where something was deployed.
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = colour("--violet");
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of marks) {
    const x = Math.round(u.valToPos(mark.at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function sayMark(u, box, marks) {
  // Near one, its text.
  const near = marks.filter((mark) => Math.abs(u.valToPos(mark.at, "x") - u.cursor.left) < 6).map((mark) => mark.text);
  const text = near.join(" · ");
  let note = box.querySelector(".chart-mark");
  if (!note) {
    note = document.createElement("div");
    note.className = "chart-mark";
    u.over.append(note);
  }
  if (note.textContent !== text) note.textContent = text;
  note.hidden = !text;
}

function sayMissing(box, text) {
  // What the chart does not know, below it.
  let note = box.querySelector(".chart-note");
  if (!note) {
    if (!text) return;
    note = document.createElement("p");
    note.className = "chart-note";
    note.setAttribute("role", "status");
    box.append(note);
  }
  if (note.textContent !== text) note.textContent = text;
  note.hidden = !text;
}

async function load(box) {
  if (document.hidden || !window.uPlot || !box.isConnected) return;
  try {
    const answer = await fetch(box.dataset.chart, { cache: "no-store" });
    if (!answer.ok) return;
    const told = await answer.json();
    draw(box, told);
    sayMissing(box, told.note || "");
  } catch { /* the banner tells */ }
}

function loadAll() {
  for (const [box, known] of charts) if (!box.isConnected) { known.plot.destroy(); charts.delete(box); }
  for (const box of document.querySelectorAll("[data-chart]")) load(box);
}

addEventListener("resize", () => {
  for (const [box, known] of charts) known.plot.setSize({ width: box.clientWidth, height: known.plot.height });
});
new MutationObserver(() => {
  for (const known of charts.values()) known.plot.destroy();
  charts.clear();
  loadAll();
}).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
document.addEventListener("visibilitychange", loadAll);
const often = document.querySelector("[data-chart]")?.dataset.every;
if (often) setInterval(loadAll, Number(often));
loadAll();
