"use strict";
const byId = (id) => document.getElementById(id);
const dataOf = (id) => JSON.parse(byId(id).textContent);
const drawn = []; // promises of all figures: the page is ready when they are

// Expressions of figures are interpreted, not compiled: the page's policy lets no text become a program.
const draw = (box, spec, options = {}) => {
  const shown = vegaEmbed(box, spec, { ast: true, actions: false, renderer: "svg", ...options, config: dataOf("theme") });
  drawn.push(shown);
  return shown;
};

document.querySelectorAll(".plot[data-spec]").forEach((box) => draw(box, dataOf(box.dataset.spec)));

document.querySelectorAll("select[data-views]").forEach((list) => list.addEventListener("change", () => {
  list.parentElement.querySelectorAll(".view").forEach((view) => {
    view.setAttribute("aria-hidden", String(view.id !== list.value));
  });
}));
