"use strict";
// Sorts, filters and zooms what is on the page. Everything is there without this script too.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);

  // A number in a cell: a count, or a length as "1.50ms", "2m03s", "1h05m", with or without "≥".
  const UNITS = { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9, m: 6e10, h: 3.6e12, d: 8.64e13 };
  const value = (text) => {
    const parts = [...text.replace("≥", "").trim().matchAll(/([+-]?[\d.]+)(ns|µs|ms|s|m|h|d)?/g)];
    if (!parts.length) return -Infinity;
    return parts.reduce((sum, [, number, unit]) => sum + parseFloat(number) * (unit ? UNITS[unit] : 1), 0);
  };

  const sort = (head) => {
    const table = head.closest("table");
    const at = [...head.parentNode.children].indexOf(head);
    const number = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? number : before === "ascending";
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => (number ? value(row.cells[at].textContent) : row.cells[at].textContent);
    const order = number ? (a, b) => a - b : (a, b) => a.localeCompare(b);
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (down ? order(b, a) : order(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  all("table.sortable th button").forEach((button) =>
    button.addEventListener("click", () => sort(button.parentNode)));

  all(".filter input").forEach((input) => input.addEventListener("input", () => {
    const sheet = input.closest(".sheet");
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...sheet.querySelector("tbody").rows];
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
    const shown = rows.filter((row) => !row.hidden).length;
    sheet.querySelector("output").textContent = words.length ? ` ${shown} of ${rows.length}` : "";
  }));

  // A link to something that is folded opens it.
  const unfold = () => {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { return; }
    const target = id && one(id);
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();

  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));

  const human = (ns) => {
    const size = Math.abs(ns);
    const [unit, name] = size < 1e3 ? [1, "ns"] : size < 1e6 ? [1e3, "µs"] : size < 1e9 ? [1e6, "ms"] : [1e9, "s"];
    return (ns < 0 ? "−" : "") + (size / unit).toPrecision(3) + name;
  };

  const timeline = one("tl");
  if (timeline) {
    const WIDE = 1e6;
    const rows = all(".row > svg", timeline);
    const marks = all(".marks > span", timeline);
    const span = Number(timeline.dataset.span);
    const zero = Number(timeline.dataset.zero);
    let from = 0;
    let wide = WIDE;
    const show = (newFrom, newWide) => {
      wide = Math.min(WIDE, Math.max(50, newWide));
      from = Math.min(WIDE - wide, Math.max(0, newFrom));
      rows.forEach((row) => row.setAttribute("viewBox", `${from} 0 ${wide} 20`));
      marks.forEach((mark, at) => {
        const place = from + (wide * at) / (marks.length - 1);
        mark.textContent = human((place / WIDE) * span - zero);
      });
    };
    const zoom = (factor, at = 0.5) => show(from + wide * at * (1 - factor), wide * factor);
    const acts = {
      in: () => zoom(0.5),
      out: () => zoom(2),
      left: () => show(from - wide / 4, wide),
      right: () => show(from + wide / 4, wide),
      all: () => show(0, WIDE),
    };
    all("[data-zoom]").forEach((button) =>
      button.addEventListener("click", () => acts[button.dataset.zoom]()));
    const keys = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", 0: "all", Home: "all" };
    timeline.addEventListener("keydown", (event) => {
      const act = keys[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      acts[act]();
    });
    const part = (x) => {
      const box = rows[0].getBoundingClientRect();
      return Math.min(1, Math.max(0, (x - box.left) / box.width));
    };
    timeline.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 0.8 : 1.25, part(event.clientX));
    }, { passive: false });
    let drag = null;
    timeline.addEventListener("pointerdown", (event) => {
      if (event.target.closest(".row > svg")) drag = { x: event.clientX, from };
    });
    addEventListener("pointermove", (event) => {
      if (!drag || wide === WIDE) return;
      const moved = (event.clientX - drag.x) / rows[0].getBoundingClientRect().width;
      show(drag.from - moved * wide, wide);
    });
    ["pointerup", "pointercancel"].forEach((name) => addEventListener(name, () => { drag = null; }));
    const what = one("tl-what");
    timeline.addEventListener("click", (event) => {
      const slice = event.target.closest("rect");
      if (!slice) return;
      all("rect.on", timeline).forEach((other) => other.classList.remove("on"));
      slice.classList.add("on");
      const who = slice.closest(".row").querySelector("bdi").textContent;
      what.textContent = `${who}: ${slice.querySelector("title").textContent}`;
    });
  }

  const flame = one("fl");
  if (flame) {
    const frames = all(".f", flame).map((frame) =>
      ({ frame, x: Number(frame.dataset.x), w: Number(frame.dataset.w), y: Number(frame.getAttribute("y")) }));
    const back = one("flame-all");
    const what = one("flame-what");
    const show = (x, w, y) => {
      for (const one of frames) {
        const above = one.y < y && one.x <= x + 1e-9 && one.x + one.w >= x + w - 1e-9;
        const inside = one.y >= y && one.x >= x - 1e-9 && one.x + one.w <= x + w + 1e-9;
        one.frame.style.display = above || inside ? "" : "none";
        one.frame.setAttribute("x", above ? "0" : `${((one.x - x) / w) * 100}%`);
        one.frame.setAttribute("width", above ? "100%" : `${(one.w / w) * 100}%`);
      }
      back.disabled = w === 1;
    };
    flame.addEventListener("click", (event) => {
      const found = event.target.closest(".f");
      const chosen = frames.find((one) => one.frame === found);
      if (!chosen) return;
      show(chosen.x, chosen.w, chosen.y);
      what.textContent = found.querySelector("title").textContent;
    });
    back.addEventListener("click", () => { show(0, 1, 0); what.textContent = ""; });
  }
})();
