// What all Plotly pictures share: colours of the page, axes, no tool bar.
export const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const axis = (more = {}) => ({
  gridcolor: ink("--line"), zeroline: false, linecolor: ink("--faint"), tickcolor: ink("--faint"), ticks: "outside", ticklen: 4,
  automargin: true, ...more,
});

export const layout = (more = {}) => ({
  font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink("--muted") },
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 18, t: 14, b: 48 },
  hovermode: "closest", dragmode: false, showlegend: false, ...more,
});

export const config = { displayModeBar: false, responsive: true };

/** Draws again when the page turns dark or light. */
export function onTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
