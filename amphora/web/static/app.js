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
const AGAIN = 3000; // milliseconds until the news are asked for again

let about = { allow: [], broker: "" };
let state = null;
let history = emptyHistory();
let view = null;
let source = null;
let paused = false;
let drawn = false;
let heard = 0;
const links = new Map();

function emptyHistory() {
  return { namespaces: new Map(), functions: new Map(), workers: new Map() };
}

// -- where the visitor is: #/NAMESPACE/TAB --------------------------------------------------------

function place() {
  const [, namespace = "", tab = ""] = location.hash.split("/");
  return { namespace: decoded(namespace), tab };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // somebody has written it by hand
  }
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
  drawn = false;
  main.replaceChildren(view.element);
  document.title = namespace ? `${namespace} · amphora` : "amphora";
  for (const [name, link] of links) setAttribute(link.element, "aria-current", name === namespace ? "page" : null);
  reveal(namespace);
}

// -- the news from the server ----------------------------------------------------------------------

function connect(namespace) {
  state = null;
  enter(namespace);
  listen(namespace);
}

function listen(namespace) {
  source?.close();
  const address = `/api/events?namespace=${encodeURIComponent(namespace)}`;
  const mine = new EventSource(address);
  source = mine;
  mine.onmessage = (message) => {
    heard = performance.now();
    take(JSON.parse(message.data), namespace);
  };
  mine.onerror = async () => {
    said("lost", "connecting again");
    // The browser connects again by itself, but not after an answer that is no stream of events.
    if (mine.readyState !== EventSource.CLOSED) return;
    const why = await refusal(address);
    if (source !== mine) return;
    if (why) complain(why);
    setTimeout(() => source === mine && listen(namespace), AGAIN);
  };
}

// Why there is no news, "" if there would be.
async function refusal(address) {
  const leaving = new AbortController();
  try {
    const answer = await fetch(address, { signal: leaving.signal });
    if (answer.ok) return "";
    const plain = answer.headers.get("Content-Type")?.startsWith("text/plain");
    return (plain && (await answer.text()).trim()) || `the server answers ${answer.status}`;
  } catch {
    return "the server cannot be reached";
  } finally {
    leaving.abort();
  }
}

function complain(why) {
  trouble.hidden = !why;
  setText(trouble, why ? `This view is out of date: ${why}` : "");
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
    // A view that was entered during a pause stands still, too, but is not empty.
    if (!paused || !drawn) draw();
  }
}

function remember(event) {
  // What is there no more is forgotten, or a page that stays open would grow.
  const add = (kind, rows, name, values) => {
    const charts = history[kind];
    const there = new Set(rows.map((row) => row[name]));
    for (const each of charts.keys()) if (!there.has(each)) charts.delete(each);
    for (const row of rows) {
      const points = charts.get(row[name]) ?? [];
      // The clock of the server was set back.
      while (points.length && points.at(-1)[0] > event.at) points.pop();
      if (points.at(-1)?.[0] === event.at) continue;
      points.push([event.at, values(row)]);
      while (points[0][0] < event.at - KEPT) points.shift();
      charts.set(row[name], points);
    }
  };
  const calls = (row) => ({ calls: row.calls_per_second });
  add("namespaces", event.namespaces, "namespace", (row) => row);
  add("functions", event.selected?.functions ?? [], "function", calls);
  add("workers", event.selected?.workers ?? [], "worker", calls);
}

// -- drawing --------------------------------------------------------------------------------------

function draw() {
  if (!state) return;
  drawn = true;
  complain(state.trouble);
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
  if (heard && performance.now() - heard > LATE && live.dataset.state === "live") said("lost", "no news");
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
