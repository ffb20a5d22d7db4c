// The dashboard: the news from the server, the place of the visitor, and the view.

import { Spark } from "./chart.js";
import { arrange, h, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Service, Services } from "./views.js";

const main = document.getElementById("main");
const nav = document.getElementById("services");
const live = document.getElementById("live");
const liveText = document.getElementById("live-text");
const trouble = document.getElementById("trouble");
const pauseButton = document.getElementById("pause");

const KEPT = 300;
const LATE = 9000; // milliseconds without news

let about = { allow: [], broker: "" };
let state = null;
let history = emptyHistory();
let view = null;
let source = null;
let paused = false;
let heard = 0;
const links = new Map();

function emptyHistory() {
  return { namespaces: new Map(), functions: new Map(), workers: new Map() };
}

// -- where the visitor is: #/NAMESPACE/TAB --------------------------------------------------------

function place() {
  const [, namespace = "", tab = ""] = location.hash.split("/");
  return { namespace: decodeURIComponent(namespace), tab };
}

function go() {
  const { namespace, tab } = place();
  if (view && view.namespace === namespace) {
    if (view.tab && tab && tab !== view.tab) view.turn(tab, false);
    return;
  }
  connect(namespace);
}

function enter(namespace) {
  const { tab } = place();
  const choose = (name) => window.history.replaceState(null, "", `#/${encodeURIComponent(namespace)}/${name}`);
  view = namespace ? new Service(namespace, about, { tab, choose }) : new Services();
  view.namespace = namespace;
  main.replaceChildren(view.element);
  document.title = namespace ? `${namespace} · amphora` : "amphora";
  for (const [name, link] of links) setAttribute(link.element, "aria-current", name === namespace ? "page" : null);
  reveal(namespace);
}

// -- the news from the server ----------------------------------------------------------------------

function connect(namespace) {
  source?.close();
  state = null;
  enter(namespace);
  source = new EventSource(`/api/events?namespace=${encodeURIComponent(namespace)}`);
  source.onmessage = (message) => {
    heard = Date.now();
    take(JSON.parse(message.data), namespace);
  };
  source.onerror = () => said("lost", "connecting again");
}

function take(event, namespace) {
  if (event.kind === "about") {
    const changed = JSON.stringify(event) !== JSON.stringify(about);
    about = event;
    setText(document.getElementById("broker"), about.broker);
    if (changed) enter(namespace);
  } else if (event.kind === "history") {
    history = emptyHistory();
    for (const kind of Object.keys(history)) history[kind] = new Map(Object.entries(event[kind]));
  } else if (event.kind === "state") {
    if (!event.trouble) remember(event);
    state = event;
    if (!paused) draw();
  }
}

function remember(event) {
  const add = (kind, name, values) => {
    const points = history[kind].get(name) ?? [];
    if (points.length && points.at(-1)[0] >= event.at) return;
    points.push([event.at, values]);
    while (points[0][0] < event.at - KEPT) points.shift();
    history[kind].set(name, points);
  };
  for (const each of event.namespaces) add("namespaces", each.namespace, each);
  for (const each of event.selected?.functions ?? []) add("functions", each.function, { calls: each.calls_per_second });
  for (const each of event.selected?.workers ?? []) add("workers", each.worker, { calls: each.calls_per_second });
}

// -- drawing --------------------------------------------------------------------------------------

function draw() {
  if (!state) return;
  trouble.hidden = !state.trouble;
  setText(trouble, state.trouble ? `This view is out of date: ${state.trouble}` : "");
  said(state.trouble ? "lost" : "live", state.trouble ? "no news" : `live · ${format.time(state.at)}`);
  drawServices();
  view.show(state, history);
}

function drawServices() {
  const { namespace: here } = place();
  const rows = [null, ...state.namespaces];
  const names = new Set(rows.map((row) => row?.namespace ?? ""));
  for (const name of links.keys()) if (!names.has(name)) links.delete(name);
  const elements = rows.map((row) => {
    const name = row?.namespace ?? "";
    let link = links.get(name);
    if (!link) {
      link = row ? serviceLink(name) : { element: h("a", { href: "#/", class: "all" }, "All services") };
      links.set(name, link);
    }
    setAttribute(link.element, "aria-current", name === here ? "page" : null);
    if (row) {
      setText(link.calls, `${format.rate(row.calls)}/s`);
      setText(link.dead, row.dead ? `${format.count(row.dead)} given up` : row.silent ? `${format.count(row.silent)} silent` : row.waiting ? `${format.count(row.waiting)} waiting` : "");
      setAttribute(link.dead, "data-tone", row.dead || row.silent ? "bad" : "warn");
      const points = history.namespaces.get(name) ?? [];
      link.spark.draw(points.map(([at, each]) => [at, each.calls]), state.at);
    }
    return link.element;
  });
  const fresh = !nav.children.length;
  arrange(nav, elements);
  if (fresh) reveal(here);
}

// In a narrow window the services form a line that scrolls.
function reveal(namespace) {
  links.get(namespace)?.element.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function serviceLink(name) {
  const spark = new Spark(64, 22);
  const calls = h("span", { class: "calls" });
  const dead = h("span", { class: "flag" });
  const element = h(
    "a",
    { href: `#/${encodeURIComponent(name)}`, class: "service" },
    h("span", { class: "service-name" }, name),
    spark.element,
    calls,
    dead,
  );
  return { element, spark, calls, dead };
}

function said(kind, text) {
  setAttribute(live, "data-state", paused ? "paused" : kind);
  setText(liveText, paused ? "paused" : text);
}

setInterval(() => {
  if (heard && Date.now() - heard > LATE && live.dataset.state === "live") said("lost", "no news");
}, 1000);

// -- keys and buttons -----------------------------------------------------------------------------

function pause() {
  paused = !paused;
  setAttribute(pauseButton, "aria-pressed", String(paused));
  setText(pauseButton, paused ? "Resume" : "Pause");
  if (paused) said("paused", "paused");
  else draw();
}

pauseButton.addEventListener("click", pause);

document.getElementById("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  dress(now === "dark" ? "light" : "dark");
});

function dress(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Then the choice is not remembered.
  }
}

try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // The system's choice will do.
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, dialog");
  if (event.key === "Escape" && event.target.id === "filter") {
    event.target.value = "";
    event.target.dispatchEvent(new Event("input"));
    event.target.blur();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.getElementById("filter")) {
    event.preventDefault();
    document.getElementById("filter").focus();
  } else if (event.key === " " && !event.target.closest("button, a")) {
    event.preventDefault();
    pause();
  } else if (view?.tabs && "12345".includes(event.key)) {
    view.turn(view.tabs[Number(event.key) - 1].name);
  }
});

addEventListener("hashchange", go);
go();
