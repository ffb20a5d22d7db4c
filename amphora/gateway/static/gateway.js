// A form for each function, made from the OpenAPI document.

import { h } from "./dom.js";
import { argument, pretty } from "./json.js";

const MOST_LINES = 500;
const AGAIN = 3000; // milliseconds
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
  const token = sessionStorage.getItem(KEY);
  element("token-form").hidden = answer.status !== 401 && !token;
  if (answer.status === 401) {
    complain(token ? "This token is not known here." : "A token is needed.");
    return true;
  }
  if (!answer.ok) {
    complain(await problemIn(answer));
    return false;
  }
  const spec = await answer.json();
  const found = Object.entries(spec.paths);
  complain(found.length ? "" : "No worker has described its functions.");
  element("title").textContent = spec.info.title;
  const services = new Map();
  for (const [path, { post }] of found) {
    const tag = post.tags[0];
    if (!services.has(tag)) services.set(tag, []);
    services.get(tag).push(formOf(path, post, spec));
  }
  element("functions").replaceChildren(
    ...[...services].map(([name, forms]) => h("section", {}, h("h2", {}, name), ...forms)),
  );
  return found.length > 0;
}

let turn = 0;

// Load what there is, and try again until there is something: then forms stay, and what is in them.
async function begin() {
  const mine = (turn += 1);
  let done = false;
  try {
    done = await load();
  } catch (error) {
    complain(`The gateway cannot be reached: ${error.message}`);
  }
  if (!done) setTimeout(() => mine === turn && begin(), AGAIN);
}

// What is wrong, in a sentence.  A proxy may have answered in the place of the gateway.
async function problemIn(answer) {
  try {
    return sentence(await answer.json());
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

function sentence(problem) {
  const ran = { true: "it ran", false: "it did not run", null: "it may have run" };
  return `${problem.status} ${problem.title}: ${problem.detail} (${ran[problem.executed]})`;
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

function formOf(path, operation, spec) {
  const schema = named(operation);
  const inputs = new Map();
  const fields = [];
  for (const [name, each] of Object.entries(schema?.properties ?? {})) {
    const needed = schema.required?.includes(name) ?? false;
    const shown = each.default === undefined ? "" : JSON.stringify(each.default);
    const input = h("input", { name, placeholder: shown, required: needed, autocomplete: "off" });
    inputs.set(name, { input, needed, schema: each });
    const kind = h("small", {}, typeOf(each, spec) + (needed ? "" : ", optional"));
    fields.push(h("label", { class: "field" }, h("span", {}, name, kind), input));
  }
  const open = !schema || schema.additionalProperties !== false || !inputs.size;
  const raw = h("textarea", {
    rows: 2,
    "aria-label": "Arguments as JSON",
    placeholder: inputs.size ? "or all arguments as JSON" : "[] by position, {} by name",
  });
  const timeout = h("input", { type: "number", min: "0.1", step: "any", placeholder: "seconds" });
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
      const text = raw.value.trim() || collect(inputs, spec);
      await call(path, text, timeout.value, output, leaving.signal);
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

// The arguments by name, as JSON.
function collect(inputs, spec) {
  const members = [];
  for (const [name, { input, needed, schema }] of inputs) {
    if (input.value === "" && !needed) continue;
    members.push(`${JSON.stringify(name)}: ${argument(input.value, schema, spec)}`);
  }
  return `{${members.join(", ")}}`;
}

async function call(path, body, timeout, output, signal) {
  const lines = [];
  const show = () => (output.textContent = lines.join("\n"));
  const fail = (text) => {
    // What has come of a stream stays.
    lines.push(text);
    output.classList.add("bad");
    show();
  };
  output.hidden = false;
  output.classList.remove("bad");
  output.textContent = "…";
  const more = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
  if (timeout) more["X-Request-Timeout"] = timeout;
  try {
    const options = { method: "POST", headers: headers(more), body, signal };
    const answer = await fetch(path.slice(1), options);
    if (!answer.ok) {
      fail(await problemIn(answer));
    } else if (answer.headers.get("Content-Type") === "text/event-stream") {
      for await (const arrived of events(answer.body)) {
        for (const { name, data } of arrived) {
          if (name === "error") fail(sentence(JSON.parse(data)));
          else if (name !== "end") lines.push(data);
          else if (data !== "null") lines.push(`returned ${data}`);
        }
        lines.splice(0, lines.length - MOST_LINES);
        show();
      }
    } else {
      lines.push(pretty(await answer.text()));
      show();
    }
  } catch (error) {
    fail(signal.aborted ? "cancelled" : `The gateway cannot be reached, or closed the connection: ${error.message}`);
  }
}

// The server-sent events of a body, as they arrive together.  Each has one line of data, or none.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    const arrived = parts.map((part) => new Map(part.split("\n").map((line) => line.split(/: ([^]*)/))));
    yield arrived
      .filter((fields) => fields.has("data"))
      .map((fields) => ({ name: fields.get("event") ?? "", data: fields.get("data") }));
  }
}

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = element("token").value.trim();
  element("token").value = "";
  if (!/^[ -~]*$/.test(token)) return complain("A token has no such characters.");
  sessionStorage.setItem(KEY, token);
  begin();
});
element("filter").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  for (const each of document.querySelectorAll("details")) {
    each.hidden = !each.dataset.name.toLowerCase().includes(wanted);
  }
});
begin();
