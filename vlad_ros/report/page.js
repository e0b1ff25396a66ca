// SPDX-License-Identifier: Apache-2.0
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const dialog = document.getElementById("closure");

// Opens the picture of a closure, or says how to draw it.
function explain(row) {
  const facts = data.facts[row];
  if (!facts) return;
  const picture = data.pictures[row];
  const [heading, text, image] = ["h2", "p", "img"].map((name) => dialog.querySelector(name));
  heading.textContent = picture ? "" : facts[0];  // the picture contains it
  text.textContent = picture ? "" : `${facts[1]}. This file does not hold its picture: ${data.command.replace("ROW", row)}`;
  image.hidden = !picture;
  if (picture) image.src = picture;
  image.alt = facts[1];
  dialog.dataset.row = row;
  if (!dialog.open) dialog.showModal();
}

const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const drawn = Object.entries(data.figures).map(async ([name, figure]) => {
  const element = document.getElementById(name);
  await Plotly.newPlot(element, figure.data, figure.layout, options);
  element.on("plotly_click", (event) => explain(event.points[0].customdata));
});
for (const button of document.querySelectorAll("button[data-row]")) {
  button.addEventListener("click", () => explain(button.dataset.row));
}
Promise.all(drawn).then(() => {
  document.body.dataset.drawn = drawn.length;
  const asked = /^#closure-(\d+)$/.exec(location.hash);
  if (asked) explain(asked[1]);
});
