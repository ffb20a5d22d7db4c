// The views of all services, and of one.

import { button } from "./actions.js";
import { Card, Spark } from "./chart.js";
import { h, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Table, plain } from "./table.js";

const { count, duration, rate } = format;

// -- cells ----------------------------------------------------------------------------------------

function spark(name, points) {
  return {
    name,
    title: "",
    label: "Calls in the last five minutes",
    class: "chart",
    least: 1,
    update: (cell, row, line) => {
      line.spark ??= new Spark();
      if (!cell.firstChild) cell.append(line.spark.element);
      line.spark.draw(points(row), row.at);
    },
  };
}

// A number, usually a duration, with a bar that compares it with the largest.
function bar(name, title, value, most, more = {}, show = duration) {
  return {
    name,
    title,
    number: true,
    value,
    update: (cell, row) => {
      if (!cell.firstChild) {
        cell.classList.add("barred");
        cell.append(h("span"), h("i", { class: "bar", "aria-hidden": "true" }));
      }
      setText(cell.firstChild, show(value(row)));
      const share = most(row) ? (value(row) ?? 0) / most(row) : 0;
      cell.lastChild.style.setProperty("--share", share.toFixed(3));
    },
    ...more,
  };
}

// The requests in progress, out of the most allowed.
function meter(name, title) {
  return {
    name,
    title,
    number: true,
    value: (row) => row.in_flight / row.concurrency,
    update: (cell, row) => {
      if (!cell.firstChild) {
        cell.classList.add("barred");
        cell.append(h("span"), h("i", { class: "bar", "aria-hidden": "true" }));
      }
      setText(cell.firstChild, `${count(row.in_flight)} / ${count(row.concurrency)}`);
      const share = Math.min(row.in_flight / row.concurrency, 1);
      cell.lastChild.style.setProperty("--share", share.toFixed(3));
      setAttribute(cell, "data-tone", share >= 0.95 ? "bad" : share >= 0.7 ? "warn" : null);
    },
  };
}

// Errors, and whether there are any now.
const errors = {
  name: "errors",
  title: "Errors",
  number: true,
  value: (row) => row.errors,
  update: (cell, row) => {
    setText(cell, count(row.errors));
    setAttribute(cell, "data-tone", row.errors_per_second > 0 ? "bad" : row.errors ? "warn" : "none");
  },
};

// -- all services ---------------------------------------------------------------------------------

export class Services {
  constructor() {
    this.table = new Table({
      caption: "Services",
      key: (row) => row.namespace,
      sort: { column: "namespace", down: false },
      empty: "No worker has answered yet. Start one with: amphora serve",
      columns: [
        {
          name: "namespace",
          title: "Service",
          value: (row) => row.namespace,
          find: (row) => row.namespace,
          class: "name",
          update: (cell, row) => {
            if (!cell.firstChild) cell.append(h("a", {}));
            setAttribute(cell.firstChild, "href", `#/${encodeURIComponent(row.namespace)}`);
            setText(cell.firstChild, row.namespace);
          },
        },
        spark("spark", (row) => row.points.map(([at, each]) => [at, each.calls])),
        plain("calls", "Calls/s", (row) => row.calls, rate, { number: true }),
        {
          ...plain("errors", "Errors/s", (row) => row.errors, rate, { number: true }),
          update: (cell, row) => {
            setText(cell, rate(row.errors));
            setAttribute(cell, "data-tone", row.errors > 0 ? "bad" : "none");
          },
        },
        plain("p95", "p95", (row) => row.p95, duration, { number: true, least: 0 }),
        plain("waiting", "Waiting", (row) => row.waiting, count, { number: true }),
        plain("waited", "Waited, p95", (row) => row.waited, duration, { number: true, least: 1 }),
        plain("running", "Running", (row) => row.running, count, { number: true, least: 0 }),
        plain("workers", "Workers", (row) => row.workers, (value, row) => (row.silent ? `${count(value)} + ${count(row.silent)} silent` : count(value)), { number: true }),
        {
          ...plain("dead", "Given up", (row) => row.dead, count, { number: true }),
          update: (cell, row) => {
            setText(cell, count(row.dead));
            setAttribute(cell, "data-tone", row.dead ? "bad" : "none");
          },
        },
      ],
    });
    this.element = h("div", {}, h("h1", {}, "Services"), this.table.element);
  }

  show(state, history) {
    this.table.show(
      state.namespaces.map((row) => ({ ...row, at: state.at, points: history.namespaces.get(row.namespace) ?? [] })),
    );
  }
}

// -- one service ----------------------------------------------------------------------------------

const CARDS = [
  { name: "calls", title: "Calls per second", show: rate },
  { name: "errors", title: "Errors per second", show: rate, tone: "bad" },
  { name: "p95", title: "Duration, p95", show: duration, hint: "95 of 100 calls of the last minute took no longer" },
  { name: "waiting", title: "Waiting in the queue", show: count, tone: "warn" },
  { name: "waited", title: "Time in the queue, p95", show: duration, tone: "warn", hint: "of requests whose time is known" },
  { name: "running", title: "Running now", show: count },
];
const TABS = [
  ["functions", "Functions"],
  ["workers", "Workers"],
  ["callers", "Callers"],
  ["active", "Running"],
  ["dead", "Given up"],
];

export class Service {
  constructor(namespace, about, { tab, choose }) {
    this.namespace = namespace;
    this.choose = choose;
    this.allow = new Set(about.allow);
    this.cards = CARDS.map((card) => [card.name, new Card(card)]);
    this.tables = {
      functions: this.functions(),
      workers: this.workers(),
      callers: this.callers(),
      active: this.active(),
      dead: this.dead(),
    };
    this.said = h("p", { class: "said" });
    this.filter = h("input", {
      type: "search",
      id: "filter",
      placeholder: "Filter  /",
      "aria-label": "Filter the rows",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.sift(),
    });
    this.tabs = TABS.map(([name, title]) => {
      const badge = h("span", { class: "badge" });
      const element = h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          "aria-controls": `panel-${name}`,
          onclick: () => this.turn(name),
          onkeydown: (event) => this.walk(event),
        },
        title,
        badge,
      );
      return { name, element, badge };
    });
    this.panels = TABS.map(([name]) => {
      const extra = name === "dead" ? (this.refused = h("p", { class: "nothing", hidden: true })) : null;
      return h(
        "div",
        { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` },
        extra,
        this.tables[name].element,
      );
    });
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "title" },
        h("h1", {}, namespace),
        this.said,
        h("p", { class: "reach" }, "charts: last 5 min · durations: last minute"),
      ),
      h("div", { class: "cards" }, ...this.cards.map(([, card]) => card.element)),
      h(
        "div",
        { class: "tabs" },
        h("div", { role: "tablist", "aria-label": "What is shown of the service" }, ...this.tabs.map((each) => each.element)),
        this.filter,
      ),
      ...this.panels,
    );
    this.turn(TABS.some(([name]) => name === tab) ? tab : "functions", false);
  }

  turn(name, tell = true) {
    this.tab = name;
    this.tabs.forEach((each, place) => {
      const chosen = each.name === name;
      setAttribute(each.element, "aria-selected", String(chosen));
      setAttribute(each.element, "tabindex", chosen ? "0" : "-1");
      this.panels[place].hidden = !chosen;
    });
    if (tell) this.choose(name);
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = TABS.findIndex(([name]) => name === this.tab);
    const next = this.tabs[(place + step + TABS.length) % TABS.length];
    this.turn(next.name);
    next.element.focus();
  }

  sift() {
    for (const table of Object.values(this.tables)) {
      table.filter = this.filter.value;
      if (table.last) table.show(table.last);
    }
  }

  show(state, history) {
    const selected = state.selected;
    if (!selected) {
      setText(this.said, state.at ? "No worker of this service has answered." : "Asking the workers.");
      for (const table of Object.values(this.tables)) table.show([]);
      return;
    }
    const at = state.at;
    const points = history.namespaces.get(this.namespace) ?? [];
    for (const [name, card] of this.cards) {
      card.draw(points.map(([when, each]) => [when, each[name]]), at);
    }
    const silent = selected.workers.filter((each) => each.state === "silent").length;
    const versions = [...new Set(selected.workers.map((each) => each.version).filter(Boolean))].sort();
    const of = versions.length ? ` of ${versions.join(" and ")}` : "";
    const there = format.plural(selected.workers.length - silent, "worker") + of;
    setText(this.said, silent ? `${there}, and ${count(silent)} that ${silent === 1 ? "does" : "do"} not answer` : there);
    setAttribute(this.said, "data-tone", silent ? "bad" : null);
    const longest = Math.max(...selected.functions.map((each) => each.p95 ?? 0), 0);
    const counts = {
      functions: selected.functions.length,
      workers: selected.workers.length,
      callers: selected.callers.length,
      active: selected.active_count,
      dead: selected.dead_count,
    };
    for (const { name, badge } of this.tabs) {
      setText(badge, counts[name] ? count(counts[name]) : "");
      setAttribute(badge, "data-tone", name === "dead" ? "bad" : null);
    }
    this.tables.functions.show(
      selected.functions.map((row) => ({ ...row, at, longest, points: history.functions.get(row.function) ?? [] })),
    );
    this.tables.workers.show(
      selected.workers.map((row) => ({ ...row, at, points: history.workers.get(row.worker) ?? [] })),
    );
    const busiest = Math.max(...selected.callers.map((each) => each.calls_per_second), 0);
    this.tables.callers.show(selected.callers.map((row) => ({ ...row, busiest })));
    this.tables.active.show(selected.active);
    this.tables.dead.show(selected.dead.map((row, place) => ({ ...row, place, at })));
    this.refused.hidden = !selected.dead_refused;
    setText(this.refused, selected.dead_refused);
  }

  functions() {
    return new Table({
      caption: "Functions",
      key: (row) => row.function,
      sort: { column: "calls", down: true },
      empty: "No function has been called yet.",
      columns: [
        plain("function", "Function", (row) => row.function, String, { find: (row) => row.function, class: "name" }),
        spark("spark", (row) => row.points.map(([at, each]) => [at, each.calls])),
        plain("calls", "Calls/s", (row) => row.calls_per_second, rate, { number: true }),
        plain("total", "Calls", (row) => row.calls, count, { number: true, least: 1 }),
        errors,
        plain("p50", "p50", (row) => row.p50, duration, { number: true, least: 0 }),
        bar("p95", "p95", (row) => row.p95, (row) => row.longest),
        plain("p99", "p99", (row) => row.p99, duration, { number: true, least: 0 }),
      ],
    });
  }

  workers() {
    return new Table({
      caption: "Workers",
      key: (row) => row.worker,
      sort: { column: "worker", down: false },
      empty: "No worker is running.",
      rowClass: (row) => row.state,
      columns: [
        {
          name: "worker",
          title: "Worker",
          value: (row) => row.worker,
          find: (row) => `${row.worker} ${row.host} ${row.version}`,
          class: "name mono",
          update: (cell, row) => {
            if (!cell.firstChild) cell.append(h("i", { class: "dot", "aria-hidden": "true" }), h("span"), h("em"));
            setText(cell.children[1], row.worker);
            setText(cell.lastChild, row.state === "serving" ? "" : row.state);
          },
        },
        plain("host", "Host", (row) => row.host, (value, row) => [value, row.pid, row.version].filter(Boolean).join(" · "), { least: 1 }),
        plain("up", "Up", (row) => row.uptime, duration, { number: true, least: 1 }),
        spark("spark", (row) => row.points.map(([at, each]) => [at, each.calls])),
        plain("calls", "Calls/s", (row) => row.calls_per_second, rate, { number: true }),
        meter("running", "Running"),
        errors,
        plain("again", "Again", (row) => row.redelivered, count, { number: true, least: 2, hint: "Requests that had been delivered before" }),
        plain("pending", "Pending", (row) => row.pending, count, { number: true, least: 2, hint: "Calls that the process has made" }),
        plain("waited", "Waited", (row) => row.queue_wait?.p95, duration, { number: true, least: 2, hint: "Time in the queue, p95" }),
        plain("p95", "p95", (row) => row.p95, duration, { number: true }),
        ...this.column(["kill", "pause"], (row) => row.state, (row) => this.forWorker(row)),
      ],
    });
  }

  forWorker(row) {
    const buttons = [];
    if (row.state === "silent") return buttons;
    const { namespace } = this;
    const { worker } = row;
    if (this.allow.has("pause")) {
      const paused = row.state === "paused";
      buttons.push(
        button(paused ? "Resume" : "Pause", {
          action: { command: paused ? "resume" : "pause", namespace, worker },
          done: () => `${worker} is ${paused ? "taking requests again" : "paused"}`,
          danger: false,
        }),
      );
    }
    if (this.allow.has("kill")) {
      buttons.push(
        button("Stop", {
          question: `Stop ${worker}, after it has finished what it runs?`,
          action: { command: "kill", namespace, worker },
          done: () => `${worker} is stopping`,
        }),
      );
    }
    return buttons;
  }

  callers() {
    return new Table({
      caption: "Who calls what",
      key: (row) => JSON.stringify([row.user, row.user ? "" : row.client, row.function]),
      sort: { column: "calls", down: true },
      empty: "There were no calls, or the workers are too old to report callers.",
      columns: [
        plain("caller", "Caller", (row) => row.user ?? row.client, (_, row) => caller(row), {
          find: (row) => `${row.user ?? ""} ${row.client} ${row.function}`,
          class: "name",
          hint: "The caller's login, if its client sends it, and the end of its client's id",
        }),
        plain("function", "Function", (row) => row.function, (value) => value || format.NONE),
        bar("calls", "Calls/s", (row) => row.calls_per_second, (row) => row.busiest, {}, rate),
        plain("share", "Share", (row) => row.share, format.percent, { number: true, hint: "Of the latest 1,000 requests of each worker" }),
        plain("clients", "Clients", (row) => row.clients, count, { number: true, least: 1, hint: "Of a login" }),
        plain("client", "Client", (row) => row.client, (value) => value || "casts", { class: "mono id", least: 1 }),
      ],
    });
  }

  active() {
    return new Table({
      caption: "Running requests",
      key: (row) => `${row.worker} ${row.id}`,
      sort: { column: "for", down: true },
      empty: "Nothing is running.",
      columns: [
        {
          name: "function",
          title: "Function",
          value: (row) => row.function,
          find: (row) => `${row.function} ${row.user ?? ""} ${row.client} ${row.id} ${row.worker}`,
          class: "name",
          update: (cell, row) => {
            if (!cell.firstChild) cell.append(h("span"), h("em"));
            setText(cell.firstChild, row.function || format.NONE);
            const said = [row.stream && "stream", row.redelivered && "redelivered", !row.begun && "not begun"];
            setText(cell.lastChild, said.filter(Boolean).join(", "));
          },
        },
        plain("for", "For", (row) => row.seconds, duration, { number: true }),
        plain("waited", "Waited", (row) => row.queue_wait, duration, { number: true }),
        plain("caller", "Caller", (row) => row.user ?? row.client, (_, row) => caller(row)),
        plain("worker", "Worker", (row) => row.worker, String, { class: "mono" }),
        plain("id", "Id", (row) => row.id, String, { class: "mono id", least: 1 }),
        ...this.column(["cancel"], () => "", (row) => [
          button("Cancel", {
            question: `Cancel ${row.function}? It is interrupted if its server allows that, and its caller is told.`,
            answer: "Cancel it",
            action: { command: "cancel", namespace: this.namespace, argument: row.id },
            done: (result) => {
              const found = Object.values(result).flat();
              if (!found.length) return "It had already ended";
              return found.every((each) => each.ended) ? `${row.function} has been cancelled` : `${row.function} continues: it must not be interrupted`;
            },
          }),
        ]),
      ],
    });
  }

  dead() {
    const table = new Table({
      caption: "Requests that were given up",
      key: (row) => `${row.place} ${row.id}`,
      sort: { column: "died", down: true },
      empty: "No request has been given up.",
      details: (cell, row) => details(cell, row),
      columns: [
        {
          name: "function",
          title: "Function",
          value: (row) => row.function,
          find: (row) => `${row.function} ${row.user ?? ""} ${row.client} ${row.id}`,
          class: "name",
          update: (cell, row, line) => {
            if (!cell.firstChild) {
              cell.append(
                h("button", { type: "button", class: "opener", onclick: () => table.toggle(line.key) }, h("span", { class: "chevron", "aria-hidden": "true" }), h("span")),
              );
            }
            setText(cell.firstChild.lastChild, row.function || "(cannot be read)");
            setAttribute(cell.firstChild, "aria-expanded", String(table.open.has(line.key)));
          },
        },
        plain("reason", "Reason", (row) => row.reason, String, { least: 0 }),
        plain("attempts", "Attempts", (row) => row.attempts, count, { number: true, least: 0 }),
        plain("died", "Given up", (row) => row.died, (value, row) => (value ? format.ago(row.at - value) : format.NONE), { number: true }),
        plain("caller", "Caller", (row) => row.user ?? row.client, (_, row) => caller(row)),
        plain("size", "Size", (row) => row.size, format.bytes, { number: true, least: 1 }),
        plain("id", "Id", (row) => row.id, String, { class: "mono id", least: 1 }),
        ...this.column(["retry", "drop"], () => "", (row) => this.forDead(row)),
      ],
    });
    return table;
  }

  forDead(row) {
    const { namespace } = this;
    const buttons = [];
    const some = (result) => Object.values(result).reduce((sum, each) => sum + each, 0);
    if (this.allow.has("retry")) {
      buttons.push(
        button("Retry", {
          question: `Put ${row.function} back into its queue? It ended its workers ${row.attempts ?? "some"} times.`,
          answer: "Retry it",
          action: { command: "retry", namespace, argument: [row.id] },
          done: (result) => (some(result) ? `${row.function} is back in its queue` : "It was no longer there"),
          danger: false,
        }),
      );
    }
    if (this.allow.has("drop")) {
      buttons.push(
        button("Drop", {
          question: `Drop this request for ${row.function} for good?`,
          answer: "Drop it",
          action: { command: "drop", namespace, argument: [row.id] },
          done: (result) => (some(result) ? "It has been dropped" : "It was no longer there"),
        }),
      );
    }
    return buttons;
  }

  // A column of buttons, if any of these are allowed; they are remade when `changed` differs.
  column(names, changed, make) {
    if (!names.some((name) => this.allow.has(name))) return [];
    return [
      {
        name: "actions",
        label: "Actions",
        class: "actions",
        update: (cell, row) => {
          const now = `${changed(row)}`;
          if (cell.dataset.made === now) return;
          cell.dataset.made = now;
          cell.replaceChildren(...make(row));
        },
      },
    ];
  }
}

function caller(row) {
  return [row.user, format.end(row.client, 10)].filter(Boolean).join(" ") || format.NONE;
}

function details(cell, row) {
  if (cell.dataset.id === row.id) return;
  cell.dataset.id = row.id;
  const lines = [
    ["Id", row.id],
    ["Client", [row.user, row.client].filter(Boolean).join(" ") || format.NONE],
    ["Given up", row.died ? format.date(row.died) : format.NONE],
    ["Routing key", row.routing_key || format.NONE],
    ["Content type", row.content_type ?? format.NONE],
  ];
  // These are JSON already: JavaScript would round their numbers.
  if (row.headers !== "{}") lines.push(["Headers", row.headers]);
  if (row.args) lines.push(["Arguments", row.args]);
  if (row.kwargs && row.kwargs !== "{}") lines.push(["By name", row.kwargs]);
  if (row.text !== undefined) lines.push(["Body", row.text]);
  cell.replaceChildren(h("dl", {}, ...lines.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, h("pre", {}, value))])));
}
