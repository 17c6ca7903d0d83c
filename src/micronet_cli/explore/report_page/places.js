"use strict";
// Where things are drawn: axes that outliers do not squash, labels that do not lie on each other. Pure arithmetic.
const quantile = (sorted, share) => sorted[Math.floor(share * (sorted.length - 1))];

// [low, high] of the values but for those that lie `reach` times the middle half's width beyond it.
function withoutOutliers(values, reach) {
  const sorted = values.filter(Number.isFinite).sort((x, y) => x - y);
  if (!sorted.length) return [0, 1];
  const ends = [sorted[0], sorted.at(-1)];
  if (sorted.length < 5) return ends;
  const [first, last] = [quantile(sorted, 0.25), quantile(sorted, 0.75)];
  const width = Math.max(last - first, 1e-3 * Math.abs(last), 1e-9);
  const inside = sorted.filter((v) => v >= first - reach * width && v <= last + reach * width);
  return [inside[0], inside.at(-1)];
}

const padded = ([low, high], share) => {
  const room = share * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - room, high + room];
};

// 1, 2 and 5 times the powers of ten between two powers of ten.
function logTicks([low, high]) {
  const found = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const digit of [1, 2, 5]) {
      const tick = Number(`${digit}e${power}`);
      if (Math.log10(tick) >= low && Math.log10(tick) <= high) found.push(tick);
    }
  return found;
}

const SIDES = {
  "top center": [0, -1],
  "bottom center": [0, 1],
  "middle right": [1, 0],
  "middle left": [-1, 0],
  "top right": [1, -1],
  "top left": [-1, -1],
  "bottom right": [1, 1],
  "bottom left": [-1, 1],
};
const overlap = (one, other) =>
  one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
const boxAround = (x, y, width, height) => ({
  left: x - width / 2,
  right: x + width / 2,
  top: y - height / 2,
  bottom: y + height / 2,
});

// Points {x, y, text} in pixels, the more important first -> for each the side of its label; null where none is free.
function placeLabels(points, { letter = 7, line = 14, marker = 14 } = {}) {
  const taken = points.map(({ x, y }) => boxAround(x, y, marker, marker));
  return points.map(({ x, y, text }, own) => {
    if (!text) return null;
    const width = letter * text.length;
    for (const [side, [across, down]] of Object.entries(SIDES)) {
      const reach = across ? (marker + width) / 2 + 1 : 0;
      const drop = down ? (marker + line) / 2 : 0;
      const box = boxAround(x + across * reach, y + down * drop, width, line);
      if (taken.some((other, i) => i !== own && overlap(box, other))) continue;
      taken.push(box);
      return side;
    }
    return null;
  });
}
