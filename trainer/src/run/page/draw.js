function grouped(n) { return n.toLocaleString("en-US"); }
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function add(name, attributes, ...children) { return document.body.appendChild(make(name, attributes, ...children)); }
function line(kind, x1, y1, x2, y2) { return make("line", { class: kind, x1, y1, x2, y2 }); }
function text(words, x, y, anchor) { return make("text", { x, y, "text-anchor": anchor }, words); }

// A measured value with three digits, also if the last ones are 0.
function digits(n) {
  const size = Math.abs(n);
  if (n === 0 || size >= 999.5) return grouped(Math.round(n));
  return size < 1e-3 ? n.toExponential(2).replace("e-", "e−") : n.toPrecision(3);
}
function percent(share) { return `${(100 * share).toFixed(1)} %`; }
// The first of these cards takes the cells that the last row would leave empty.
function fillRows(grid) {
  const n = grid.children.length, columns = Math.min(n, getComputedStyle(grid).gridTemplateColumns.split(" ").length);
  if (n) grid.firstChild.style.gridColumn = `span ${1 + (columns - n % columns) % columns}`;
}

// Ticks up to high, about `most` of them, the first at or below low: multiples of 1, 2 or 5, or on a logarithmic axis powers of ten and their parts.
function ticks(low, high, most, log) {
  if (log) {
    const decades = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
    const parts = [[1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]];
    const around = values => values.filter((value, i) => (value >= low * (1 - 1e-9) || values[i + 1] > low * (1 + 1e-9)) && value <= high * (1 + 1e-9));
    const choices = parts.map(parts => around(decades.flatMap(ten => parts.map(part => +(part * ten).toPrecision(3)))));
    const found = choices.find(choice => choice.length <= most) ?? choices.at(-1).filter((_, i, all) => i % Math.ceil(all.length / most) === 0);
    if (found.length >= 3) return found;
  }
  const ten = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10].map(part => part * ten).find(step => (high - low) / step <= most);
  const first = Math.floor(low / step + 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}
