// Tables whose rows stay the same elements while their numbers change.

import { arrange, h, setAttribute, setText } from "./dom.js";

// A column: {name, title, value(row), cell(row), number, update(td, row), wide, sorts}.
export class Table {
  constructor({ caption, columns, key, sort, empty, rowClass, details }) {
    Object.assign(this, { columns, key, empty, rowClass, details });
    this.sort = sort;
    this.rows = new Map();
    this.open = new Set();
    this.filter = "";
    this.body = h("tbody");
    this.heads = columns.map((column) => this.head(column));
    this.nothing = h("p", { class: "nothing", hidden: true });
    this.table = h(
      "table",
      {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, ...this.heads)),
      this.body,
    );
    this.element = h("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption }, this.table, this.nothing);
    this.mark();
  }

  head(column) {
    const classes = [column.number && "number", column.least !== undefined && `least-${column.least}`].filter(Boolean).join(" ");
    if (!column.value) {
      const name = column.title ?? "";
      return h("th", { scope: "col", class: classes || null }, name || h("span", { class: "hidden" }, column.label ?? ""));
    }
    return h(
      "th",
      { scope: "col", class: classes || null },
      h("button", { type: "button", title: column.hint ?? null, onclick: () => this.sortBy(column) }, column.title),
    );
  }

  sortBy(column) {
    const same = this.sort.column === column.name;
    this.sort = { column: column.name, down: same ? !this.sort.down : Boolean(column.number) };
    this.mark();
    this.show(this.last ?? []);
  }

  mark() {
    this.columns.forEach((column, place) => {
      const how = this.sort.column === column.name ? (this.sort.down ? "descending" : "ascending") : null;
      setAttribute(this.heads[place], "aria-sort", how);
    });
  }

  show(rows) {
    this.last = rows;
    const words = this.filter.toLowerCase();
    const column = this.columns.find((each) => each.name === this.sort.column);
    const shown = rows
      .filter((row) => !words || this.columns.some((each) => each.find && each.find(row).toLowerCase().includes(words)))
      .map((row) => [column.value(row), row]);
    shown.sort(([a], [b]) => compare(a, b) * (this.sort.down ? -1 : 1));
    const keys = new Set();
    const lines = [];
    for (const [, row] of shown) {
      const key = this.key(row);
      if (keys.has(key)) continue;
      keys.add(key);
      let line = this.rows.get(key);
      if (!line) {
        line = this.line(key);
        this.rows.set(key, line);
      }
      line.row = row;
      setAttribute(line.element, "class", (this.rowClass && this.rowClass(row)) || null);
      this.columns.forEach((each, place) => each.update(line.cells[place], row, line));
      lines.push(line.element);
      if (this.open.has(key)) {
        line.details ??= h("tr", { class: "details" }, h("td", { colspan: this.columns.length }));
        this.details(line.details.firstChild, row);
        lines.push(line.details);
      }
    }
    for (const key of this.rows.keys()) if (!keys.has(key)) this.rows.delete(key);
    arrange(this.body, lines);
    this.nothing.hidden = lines.length > 0;
    this.table.hidden = lines.length === 0;
    setText(this.nothing, words && rows.length ? `Nothing contains “${this.filter}”.` : this.empty);
  }

  line(key) {
    const cells = this.columns.map((column, place) => {
      const classes = [column.number && "number", column.class, column.least !== undefined && `least-${column.least}`].filter(Boolean).join(" ");
      return h(place === 0 ? "th" : "td", { class: classes || null, scope: place === 0 ? "row" : null });
    });
    return { key, cells, element: h("tr", {}, ...cells) };
  }

  toggle(key) {
    if (!this.open.delete(key)) this.open.add(key);
    this.show(this.last);
  }
}

function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : -1;
  if (b === null || b === undefined) return 1;
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

// A column of texts or numbers.
export function plain(name, title, value, show, more = {}) {
  return {
    name,
    title,
    value,
    update: (cell, row) => setText(cell, show(value(row), row)),
    ...more,
  };
}
