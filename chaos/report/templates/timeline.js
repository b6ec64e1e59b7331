// Reads values under a cursor and zooms all charts of the time line together. Without it they are drawn all the same.
(() => {
  "use strict";
  const group = document.querySelector(".timeline");
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!group) return;
  document.documentElement.classList.add("js");
  const charts = [...group.querySelectorAll("svg.chart")];
  const at = document.querySelector("[data-at]");
  const buttons = [...document.querySelectorAll("[data-zoom]")];
  const LEAST_S = 3, CHARACTER_PX = 6.6, SVG = "http://www.w3.org/2000/svg";
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
  let begin = data.begin, end = data.end, cursor = null, from = null;

  const number = (value) => value === null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: value < 100 ? 3 : 6, maximumFractionDigits: 0, roundingPriority: "morePrecision" });
  const place = (chart, t) => +chart.dataset.left + (t - begin) / (end - begin) * +chart.dataset.inner;

  function show() {
    for (const chart of charts) {
      const plot = chart.querySelector(".plot");
      plot.setAttribute("viewBox", `${begin} 0 ${end - begin} ${plot.getAttribute("height")}`);
      for (const label of chart.querySelectorAll("[data-words]")) {
        const x = place(chart, Math.max(+label.dataset.begin, begin)), words = label.dataset.words;
        const room = Math.floor((place(chart, Math.min(+label.dataset.end, end)) - x - 8) / CHARACTER_PX);
        label.setAttribute("x", x + 5);
        label.textContent = words.length <= room ? words : room >= 4 ? words.slice(0, room - 1) + "…" : "";
      }
      const times = chart.querySelector(".times");
      if (times) {
        const step = STEPS.find((one) => (end - begin) / one <= +chart.dataset.inner / 64) || 86400;
        times.replaceChildren();
        for (let t = Math.ceil(begin / step) * step; t <= end; t += step) {
          const text = document.createElementNS(SVG, "text");
          text.setAttribute("x", place(chart, t));
          text.setAttribute("y", times.dataset.y);
          text.setAttribute("text-anchor", "middle");
          text.setAttribute("class", "tick");
          text.textContent = `${t} s`;
          times.append(text);
        }
      }
    }
    const isAll = begin === data.begin && end === data.end;
    for (const button of buttons) button.disabled = button.dataset.zoom === "in" ? end - begin <= LEAST_S : isAll;
    point();
  }

  function zoom(low, high) {
    const span = Math.min(Math.max(high - low, LEAST_S), data.end - data.begin);
    begin = Math.min(Math.max(low, data.begin), data.end - span);
    end = begin + span;
    show();
  }

  function by(factor) {
    const middle = cursor === null ? (begin + end) / 2 : cursor, span = (end - begin) * factor;
    zoom(middle - span / 2, middle + span / 2);
  }

  function line(plot, css, t) {
    let found = plot.querySelector(`.${css}`);
    if (t === null) { if (found) found.remove(); return; }
    if (!found) {
      found = document.createElementNS(SVG, "line");
      found.setAttribute("class", css);
      found.setAttribute("y1", 0);
      found.setAttribute("y2", plot.getAttribute("height"));
      plot.append(found);
    }
    found.setAttribute("x1", t);
    found.setAttribute("x2", t);
  }

  function point() {
    for (const chart of charts) line(chart.querySelector(".plot"), "cursor", cursor);
    if (at) at.textContent = cursor === null ? "" : `at ${cursor.toFixed(1)} s`;
    for (const [key, curves] of Object.entries(data.charts)) {
      const outputs = document.querySelectorAll(`[data-legend="${key}"] output`);
      curves.forEach((curve, index) => {
        if (!outputs[index]) return;
        const near = cursor === null ? null : curve.points.find((one) => Math.abs(one[0] - cursor) <= 0.5);
        outputs[index].textContent = cursor === null ? "" : number(near ? near[1] : null);
      });
    }
  }

  function time(event) {
    const chart = event.target.closest("svg.chart");
    if (!chart) return null;
    const box = chart.getBoundingClientRect(), scale = chart.viewBox.baseVal.width / box.width;
    const share = ((event.clientX - box.left) * scale - +chart.dataset.left) / +chart.dataset.inner;
    return share < 0 || share > 1 ? null : begin + share * (end - begin);
  }

  group.addEventListener("pointermove", (event) => { cursor = time(event); point(); });
  group.addEventListener("pointerleave", () => { cursor = null; point(); });
  group.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse") from = time(event); });
  group.addEventListener("pointerup", (event) => {
    const to = time(event);
    if (from !== null && to !== null && Math.abs(to - from) >= (data.end - data.begin) / 100) zoom(Math.min(from, to), Math.max(from, to));
    from = null;
  });
  group.addEventListener("dblclick", () => zoom(data.begin, data.end));
  group.addEventListener("keydown", (event) => {
    const step = (end - begin) / 50, middle = cursor === null ? (begin + end) / 2 : cursor;
    const keys = {
      ArrowLeft: () => { cursor = Math.max(middle - step, begin); point(); },
      ArrowRight: () => { cursor = Math.min(middle + step, end); point(); },
      "+": () => by(0.5), "=": () => by(0.5), "-": () => by(2), "0": () => zoom(data.begin, data.end),
      Escape: () => { cursor = null; zoom(data.begin, data.end); },
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const button of buttons) button.addEventListener("click", () => ({ in: () => by(0.5), out: () => by(2), all: () => zoom(data.begin, data.end) })[button.dataset.zoom]());
})();
