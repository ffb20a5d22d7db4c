// A form for each function, made from the OpenAPI document.

import { h } from "./dom.js";

const MOST_LINES = 500;
const KEY = "amphora-gateway-token";

const element = (id) => document.getElementById(id);

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

function complain(text) {
  element("trouble").textContent = text;
  element("trouble").hidden = !text;
}

async function load() {
  const answer = await fetch("openapi.json", { headers: headers() });
  element("token-form").hidden = answer.status !== 401 && !sessionStorage.getItem(KEY);
  if (!answer.ok) {
    complain(answer.status === 401 ? "A token is needed." : (await answer.json()).detail);
    return;
  }
  const spec = await answer.json();
  complain(Object.keys(spec.paths).length ? "" : "No worker has described its functions.");
  element("title").textContent = spec.info.title;
  const services = new Map();
  for (const [path, { post }] of Object.entries(spec.paths)) {
    const tag = post.tags[0];
    if (!services.has(tag)) services.set(tag, []);
    services.get(tag).push(formOf(path, post, spec));
  }
  element("functions").replaceChildren(
    ...[...services].map(([name, forms]) => h("section", {}, h("h2", {}, name), ...forms)),
  );
}

// The schema of the arguments by name, if the function takes them.
function named(operation) {
  const schema = operation.requestBody.content["application/json"].schema;
  return (schema.anyOf ?? [schema]).find((each) => each.type === "object");
}

function typeOf(schema, spec) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((each) => typeOf(each, spec)).join(" | ");
  if (schema.type === "array" && schema.items) return `array of ${typeOf(schema.items, spec)}`;
  return schema.format ?? [schema.type ?? "any"].flat().join(" | ");
}

// JSON, or a text where it is not JSON.
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function formOf(path, operation, spec) {
  const schema = named(operation);
  const inputs = new Map();
  const fields = [];
  for (const [name, each] of Object.entries(schema?.properties ?? {})) {
    const needed = schema.required?.includes(name) ?? false;
    const shown = each.default === undefined ? "" : JSON.stringify(each.default);
    const input = h("input", { name, placeholder: shown, required: needed, autocomplete: "off" });
    inputs.set(name, { input, needed });
    const kind = h("small", {}, typeOf(each, spec) + (needed ? "" : ", optional"));
    fields.push(h("label", { class: "field" }, h("span", {}, name, kind), input));
  }
  const open = !schema || schema.additionalProperties !== false || !inputs.size;
  const raw = h("textarea", {
    rows: 2,
    "aria-label": "Arguments as JSON",
    placeholder: inputs.size ? "or all arguments as JSON" : "[] by position, {} by name",
  });
  const timeout = h("input", { type: "number", min: "0.1", step: "any", placeholder: "60" });
  const send = h("button", {}, "Call");
  const stop = h("button", { type: "button", class: "quiet", disabled: true }, "Cancel");
  const output = h("pre", { hidden: true, role: "status" });
  const buttons = h("div", { class: "buttons" }, send, stop, h("label", {}, "Timeout ", timeout));
  const form = h("form", { novalidate: true }, ...fields, open ? raw : null, buttons);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const leaving = new AbortController();
    stop.onclick = () => leaving.abort();
    send.disabled = true;
    stop.disabled = false;
    try {
      const text = raw.value.trim() || JSON.stringify(collect(inputs));
      await call(path, text, timeout.value, operation["x-stream"], output, leaving.signal);
    } finally {
      send.disabled = false;
      stop.disabled = true;
    }
  });
  const name = path.slice(1).split("/").map(decodeURIComponent)[1];
  const marks = [];
  if (operation["x-stream"]) marks.push(h("span", { class: "tag" }, "stream"));
  if (operation.deprecated) marks.push(h("span", { class: "tag" }, "deprecated"));
  const head = h("summary", {}, h("code", {}, name), h("span", {}, operation.summary ?? ""));
  head.append(...marks);
  // Its first line is the summary.
  const more = (operation.description ?? "").split("\n").slice(1).join("\n").trim();
  const doc = more ? h("p", { class: "doc" }, more) : null;
  const body = h("div", { class: "body" }, doc, form, output);
  return h("details", { "data-name": operation.operationId }, head, body);
}

function collect(inputs) {
  const values = {};
  for (const [name, { input, needed }] of inputs) {
    if (input.value !== "" || needed) values[name] = valueOf(input.value);
  }
  return values;
}

async function call(path, body, timeout, isStream, output, signal) {
  const show = (text, bad = false) => {
    output.hidden = false;
    output.textContent = text;
    output.classList.toggle("bad", bad);
  };
  show("…");
  const more = { "Content-Type": "application/json" };
  if (timeout) more["X-Request-Timeout"] = timeout;
  if (isStream) more.Accept = "application/x-ndjson";
  try {
    const options = { method: "POST", headers: headers(more), body, signal };
    const answer = await fetch(path.slice(1), options);
    if (!answer.ok) {
      const problem = await answer.json();
      const ran = { true: "it ran", false: "it did not run", null: "it may have run" };
      show(`${problem.status} ${problem.title}: ${problem.detail} (${ran[problem.executed]})`, true);
    } else if (isStream) {
      await follow(answer.body, show);
    } else {
      show(JSON.stringify(await answer.json(), null, 2));
    }
  } catch (error) {
    show(signal.aborted ? "cancelled" : `The gateway cannot be reached, or closed the connection: ${error.message}`, true);
  }
}

async function follow(body, show) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = [];
  let rest = "";
  show("");
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    lines.push(...parts);
    lines.splice(0, lines.length - MOST_LINES);
    show(lines.join("\n"));
  }
}

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, element("token").value);
  element("token").value = "";
  load();
});
element("filter").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  for (const each of document.querySelectorAll("details")) {
    each.hidden = !each.dataset.name.toLowerCase().includes(wanted);
  }
});
load().catch((error) => complain(`The gateway cannot be reached: ${error.message}`));
