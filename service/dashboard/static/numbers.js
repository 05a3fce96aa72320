// Numbers as the tables write them.
const SCALES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

export function scaleOf(most, unit = "") {
  const [factor, prefix] = SCALES.find(([size]) => most >= size) ?? [1, ""];
  return { factor, unit: `${prefix}${unit}` };
}

export function scaled(value, unit = "") {
  const { factor, unit: name } = scaleOf(Math.abs(value), unit);
  const size = Math.abs(value / factor);
  return `${(value / factor).toFixed(size >= 99.95 || Number.isInteger(value / factor) ? 0 : size >= 9.995 ? 1 : 2)} ${name}`.trim();
}

/** With its sign, a true minus and a plain zero. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? `±${text}` : `${value > 0 ? "+" : "−"}${text}`;
}

export const percent = (fraction, digits = 2) => `${(100 * fraction).toFixed(digits)} %`;

/** Round values between two ends, about `count` of them. */
export function ticks(low, high, count = 5) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((size) => size * power >= rough) ?? 10);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}
