"""The style sheet of the report: readable in light and dark, on a phone and on paper."""

CSS = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #1f2329; --soft: #667080; --line: #e2e5ea;
  --accent: #0b6bcb; --warn: #9a5b00; --warnbg: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --bg: #14161a; --card: #1d2026; --ink: #e7eaee; --soft: #9aa4b2;
  --line: #31363f; --accent: #6cb2ff; --warn: #ffd08a; --warnbg: #3d3016; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0 20px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 0 0 14px; overflow-wrap: anywhere; }
h3 { font-size: 13px; margin: 26px 0 10px; color: var(--soft); font-weight: 600; text-transform: uppercase;
  letter-spacing: .06em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 24px;
  margin: 0 0 22px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 32px; margin: 0; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.tag { font-size: 12px; font-weight: 600; color: var(--warn); background: var(--warnbg); border-radius: 99px;
  padding: 3px 10px; vertical-align: 3px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
figure { margin: 0; max-width: 760px; }
figure.wide { max-width: none; }
figure.wide figcaption { display: none; }
img, video { display: block; width: 100%; border-radius: 8px; border: 1px solid var(--line); background: #fff; }
figcaption, .note { color: var(--soft); font-size: 13px; margin: 6px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 22px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400; }
th { color: var(--soft); }
td { overflow-wrap: anywhere; }
.compare tr:first-child th { color: var(--ink); font-weight: 600; white-space: nowrap; }
.compare th.group { padding-top: 14px; font-size: 12px; font-weight: 600; text-transform: uppercase;
  letter-spacing: .06em; }
details { border-top: 1px solid var(--line); margin-top: 18px; padding-top: 12px; }
details + details { margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; }
details .scroll { margin-top: 8px; }
pre { background: var(--bg); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  white-space: pre-wrap; font-size: 13px; margin: 0; }
a { color: var(--accent); }
@media print { details > * { display: block; } section { break-inside: avoid; } }
"""
