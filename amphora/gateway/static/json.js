// JSON as it is written.  JavaScript's numbers would change it: 2⁵³ + 1 becomes 2⁵³, and 1.0 becomes 1.

const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// The same JSON, on a line for each member and element.
export function pretty(text) {
  let shown = "";
  let start = "\n";
  let last = "";
  for (const token of text.match(TOKENS) ?? []) {
    const opened = last === "{" || last === "[";
    if (token === "}" || token === "]") {
      start = start.slice(0, -2);
      if (!opened) shown += start;
    } else if (opened || last === ",") {
      shown += start;
    }
    shown += token;
    if (token === "{" || token === "[") start += "  ";
    if (token === ":") shown += " ";
    last = token;
  }
  return shown;
}

// What someone wrote in a field, as JSON: as it is if the schema takes that, and otherwise as a text.
export function argument(text, schema, spec) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return JSON.stringify(text);
  }
  const types = typesOf(schema, spec);
  return types.has("string") && !types.has(typeOf(value)) ? JSON.stringify(text) : text;
}

function typeOf(value) {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

const TYPES = ["null", "boolean", "number", "string", "array", "object"];

// The types of the values that a schema takes: all of them if it does not say.
function typesOf(schema, spec) {
  if (schema.$ref) return typesOf(spec.components.schemas[schema.$ref.split("/").pop()] ?? {}, spec);
  if (schema.enum) return new Set(schema.enum.map(typeOf));
  if (schema.anyOf) return new Set(schema.anyOf.flatMap((each) => [...typesOf(each, spec)]));
  return new Set([schema.type ?? TYPES].flat().map((each) => (each === "integer" ? "number" : each)));
}
