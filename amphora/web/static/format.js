// Numbers in the form in which they are shown.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const NONE = "–";

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return value >= 100 || value === 0 ? whole.format(value) : tenths.format(value);
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds === 0) return "0 ms";
  for (const [unit, size, limit] of [["µs", 1e-6, 1e-3], ["ms", 1e-3, 1], ["s", 1, 120]]) {
    if (seconds < limit) return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  }
  for (const [unit, size, limit] of [["min", 60, 7200], ["h", 3600, 172800]]) {
    if (seconds < limit) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} d`;
}

export function ago(seconds) {
  return `${duration(Math.max(seconds < 120 ? Math.round(seconds) : seconds, 1))} ago`;
}

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${tenths.format(size / 1e3)} kB` : `${tenths.format(size / 1e6)} MB`;
}

export function time(at) {
  return clock.format(at * 1000);
}

export function date(at) {
  return day.format(at * 1000);
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function end(id, length = 10) {
  return id.length > length ? `…${id.slice(-length)}` : id;
}
