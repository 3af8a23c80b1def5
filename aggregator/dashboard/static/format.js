// Numbers and times as people read them.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];
const AGES = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "days"]];

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

export function decimal(value) {
  return value === null || value === undefined ? NONE : tenth.format(value);
}

export function quality(value) {
  return value === null || value === undefined ? NONE : value.toFixed(3);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 100 && unit > 0 ? tenth.format(value) : whole.format(value)} ${BYTE_UNITS[unit]}`;
}

// Rounded down: 99.97 % saved is not "100 %".
export function percent(ratio) {
  if (ratio === null || ratio === undefined) return NONE;
  return `${(Math.floor(ratio * 1000) / 10).toFixed(1)} %`;
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function ago(at, now) {
  const age = Math.max(0, now - at);
  if (age < 2) return "just now";
  const [, size, unit] = AGES.find(([below]) => age < below);
  return `${Math.floor(age / size)} ${unit} ago`;
}

export function moment(at) {
  return new Date(at * 1000).toLocaleString();
}
