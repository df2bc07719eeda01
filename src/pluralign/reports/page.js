"use strict";
// Light and dark, what a mark is, and turning the cloud. The page can be read without any of it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const tip = document.getElementById("tip");

  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  if (matchMedia("(max-width: 40rem)").matches) document.querySelector("nav details").open = false;
  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });

  function show(text, x, y) {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;  // text, never markup
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
  }

  // Where the pointer is in the drawing's own units.
  function inside(svg, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [at.x, at.y];
  }

  function nearest(points, x, y, reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < points.length; i++) {
      const d = (points[i][0] - x) ** 2 + (points[i][1] - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  for (const svg of document.querySelectorAll("svg[data-dots]")) {
    const dots = data.dots[svg.dataset.dots];
    const [left, top, width, height, x0, x1, y0, y1] = svg.dataset.frame.split(" ").map(Number);
    const at = dots.x.map((x, i) => [left + width * (x - x0) / (x1 - x0), top + height * (1 - (dots.y[i] - y0) / (y1 - y0))]);
    svg.addEventListener("pointermove", (event) => {
      const i = nearest(at, ...inside(svg, event), 14);
      show(i < 0 ? "" : dots.tips[i], event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => show(""));
  }

  for (const svg of document.querySelectorAll("svg[data-heatmap]")) {
    const map = data.heatmaps[svg.dataset.heatmap];
    svg.addEventListener("pointermove", (event) => {
      const [x, y] = inside(svg, event).map(Math.floor);
      const value = map.values[y] && map.values[y][x];
      show(value === undefined || value === null ? "" : `${map.names[y]} and ${map.names[x]}: ${(value / 100).toFixed(2)}`, event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => show(""));
  }

  for (const event of ["pointerover", "pointerdown"]) {
    document.addEventListener(event, (at) => {
      const mark = at.target.closest && at.target.closest("[data-tip]");
      if (mark) show(mark.dataset.tip, at.clientX, at.clientY);
      else if (!(at.target.closest && at.target.closest("svg[data-dots], svg[data-heatmap], svg[data-cloud]"))) show("");
    });
  }
  addEventListener("touchmove", () => show(""), { passive: true });  // a mouse says itself what is under it now

  const SVG = "http://www.w3.org/2000/svg";
  const SIZE = 115, BINS = 3;
  // The same shapes as in `svg.py`: circle, square, triangle, diamond, triangle on its head.
  function outline(shape, x, y, r) {
    switch (shape) {
      case 0: return `M${x.toFixed(1)} ${y.toFixed(1)}h0`;
      case 1: return `M${(x - 0.86 * r).toFixed(1)} ${(y - 0.86 * r).toFixed(1)}h${1.72 * r}v${1.72 * r}h${-1.72 * r}z`;
      case 2: return `M${x.toFixed(1)} ${(y - 1.15 * r).toFixed(1)}l${r} ${1.9 * r}h${-2 * r}z`;
      case 3: return `M${x.toFixed(1)} ${(y - 1.2 * r).toFixed(1)}l${1.2 * r} ${1.2 * r}l${-1.2 * r} ${1.2 * r}l${-1.2 * r} ${-1.2 * r}z`;
      default: return `M${x.toFixed(1)} ${(y + 1.15 * r).toFixed(1)}l${r} ${-1.9 * r}h${-2 * r}z`;
    }
  }
  const CORNERS = [0, 1, 2, 3, 4, 5, 6, 7].map((k) => [k & 1 ? 1 : -1, k & 2 ? 1 : -1, k & 4 ? 1 : -1]);
  const EDGES = [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]];

  for (const svg of document.querySelectorAll("svg[data-cloud]")) {
    const { xyz, group, tips } = data.clouds[svg.dataset.cloud];
    const first = [Number(svg.dataset.yaw), Number(svg.dataset.pitch)];
    let [yaw, pitch] = first, seen = [], asked = 0, held = null;
    const radius = xyz.length < 400 ? 4 : xyz.length < 1500 ? 3 : 2.2;
    const groups = [...new Set(group)].sort((a, b) => a - b);
    const layer = svg.querySelector("g.dots");
    layer.textContent = "";
    function path(name) {
      const made = layer.appendChild(document.createElementNS(SVG, "path"));
      made.setAttribute("class", name);
      return made;
    }
    const frame = path("frame");
    const layers = [];  // the far points first, so that the near ones cover them
    for (let bin = 0; bin < BINS; bin++) {
      for (const k of groups) {
        const made = path(`s${k % 8} ${k % 5 ? "area" : "pen"}`);
        const r = radius * (0.8 + 0.2 * bin);
        made.setAttribute("opacity", (0.4 + 0.25 * bin).toFixed(2));
        if (k % 5 === 0) made.setAttribute("stroke-width", 2 * r);
        layers.push({ made, bin, k, r });
      }
    }
    function turned([x, y, z]) {
      const a = Math.cos(yaw), b = Math.sin(yaw), c = Math.cos(pitch), d = Math.sin(pitch);
      const depth = -x * b + z * a;
      return [SIZE * (x * a + z * b), -SIZE * (y * c - depth * d), y * d + depth * c];
    }
    function redraw() {
      asked = 0;
      seen = xyz.map(turned);
      const corners = CORNERS.map(turned);
      frame.setAttribute("d", EDGES.map(([i, j]) => `M${corners[i][0].toFixed(1)} ${corners[i][1].toFixed(1)}L${corners[j][0].toFixed(1)} ${corners[j][1].toFixed(1)}`).join(""));
      const texts = new Map();
      const bounds = [-0.33, 0.33];
      seen.forEach(([x, y, near], i) => {
        const bin = near < bounds[0] ? 0 : near < bounds[1] ? 1 : 2;
        const key = bin * 1000 + group[i];
        const r = radius * (0.8 + 0.2 * bin);
        if (!texts.has(key)) texts.set(key, []);
        texts.get(key).push(outline(group[i] % 5, x, y, r));
      });
      for (const { made, bin, k } of layers) made.setAttribute("d", (texts.get(bin * 1000 + k) || []).join(""));
      svg.dataset.yaw = yaw.toFixed(3);
      svg.dataset.pitch = pitch.toFixed(3);
    }
    function turn(dyaw, dpitch) {
      yaw += dyaw;
      pitch = Math.max(-1.5, Math.min(1.5, pitch + dpitch));
      if (!asked) asked = requestAnimationFrame(redraw);
    }
    svg.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      svg.setPointerCapture(event.pointerId);
      show("");
    });
    svg.addEventListener("pointermove", (event) => {
      if (held) {
        turn((event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.01);
        held = [event.clientX, event.clientY];
        return;
      }
      const i = nearest(seen, ...inside(svg, event), 10);
      show(i < 0 ? "" : tips[i], event.clientX, event.clientY);
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });
    svg.addEventListener("pointerleave", () => show(""));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (!step) return;
      event.preventDefault();
      turn(...step);
    });
    for (const button of svg.parentElement.querySelectorAll("button[data-turn]")) {
      button.addEventListener("click", () => {
        const step = Number(button.dataset.turn);
        if (step) turn(step, 0);
        else turn(first[0] - yaw, first[1] - pitch);
      });
    }
    redraw();
  }
  root.dataset.drawn = "true";
})();
