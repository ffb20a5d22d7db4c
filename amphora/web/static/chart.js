// Small charts of the last minutes.

import { h, setText, svg } from "./dom.js";
import * as format from "./format.js";

export const LONGEST = 300; // seconds
const SHORTEST = 60;
const GAP = 25; // seconds without a point are a gap

// The seconds to draw: all of them, but never too few.
function reach(points, now) {
  return Math.min(Math.max(now - (points[0]?.[0] ?? now), SHORTEST), LONGEST);
}

// The line and the area of points [at, value], in a box of width and height.
function paths(points, now, width, height, top) {
  let line = "";
  let area = "";
  let last = null;
  const seconds = reach(points, now);
  const x = (at) => width - ((now - at) / seconds) * width;
  const y = (value) => height - 1.5 - (value / top) * (height - 4);
  const close = () => {
    if (last !== null) area += `L${x(last).toFixed(1)},${height}Z`;
  };
  for (const [at, value] of points) {
    if (value === null || value === undefined || at < now - LONGEST) continue;
    const place = `${x(at).toFixed(1)},${y(value).toFixed(1)}`;
    if (last === null || at - last > GAP) {
      close();
      line += `M${place}`;
      area += `M${x(at).toFixed(1)},${height}L${place}`;
    } else {
      line += `L${place}`;
      area += `L${place}`;
    }
    last = at;
  }
  close();
  return { line, area };
}

function highest(points) {
  return points.reduce((most, [, value]) => Math.max(most, value ?? 0), 0);
}

// A line for a row of a table.
export class Spark {
  constructor(width = 96, height = 22) {
    this.size = [width, height];
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.element = svg(
      "svg",
      { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      this.area,
      this.line,
    );
  }

  draw(points, now) {
    const { line, area } = paths(points, now, ...this.size, Math.max(highest(points), 1e-9));
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

// A number with its chart.  Under the pointer, it shows the number of that moment.
export class Card {
  constructor({ title, show, tone = "calm", hint = "" }) {
    this.show = show;
    this.points = [];
    this.now = 0;
    this.value = h("span", { class: "value" }, format.NONE);
    this.note = h("span", { class: "note" });
    this.peak = h("span", { class: "peak" });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.mark = svg("line", { class: "mark", y1: 0, y2: 56, visibility: "hidden" });
    this.chart = svg(
      "svg",
      { viewBox: "0 0 240 56", preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.line,
      this.mark,
    );
    this.element = h(
      "section",
      {
        class: "card",
        "data-tone": tone,
        title: hint,
        onpointermove: (event) => this.point(event),
        onpointerleave: () => this.leave(),
      },
      h("h3", {}, title, this.peak),
      h("p", {}, this.value, this.note),
      this.chart,
    );
  }

  draw(points, now) {
    this.points = points;
    this.now = now;
    const most = highest(points);
    const { line, area } = paths(points, now, 240, 56, Math.max(most, 1e-9));
    this.element.toggleAttribute("data-flat", most === 0);
    setText(this.peak, most > 0 ? `peak ${this.show(most)}` : "");
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    if (!this.pointed) this.leave();
  }

  leave() {
    this.pointed = false;
    this.mark.setAttribute("visibility", "hidden");
    setText(this.value, this.show(this.points.at(-1)?.[1]));
    setText(this.note, "");
  }

  point(event) {
    const box = this.chart.getBoundingClientRect();
    const seconds = reach(this.points, this.now);
    const at = this.now - seconds * (1 - (event.clientX - box.left) / box.width);
    let near = null;
    for (const each of this.points) {
      if (near === null || Math.abs(each[0] - at) < Math.abs(near[0] - at)) near = each;
    }
    if (near === null || Math.abs(near[0] - at) > GAP) return this.leave();
    this.pointed = true;
    const x = 240 - ((this.now - near[0]) / seconds) * 240;
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
    this.mark.setAttribute("visibility", "visible");
    setText(this.value, this.show(near[1]));
    setText(this.note, `at ${format.time(near[0])}`);
  }
}
