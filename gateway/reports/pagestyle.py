"""The cost page's style sheet: light and dark by the reader's setting, one column on a phone, two from 900 pixels on."""

ACCOUNTS = (
    "infer",
    "resident",
    "load",
    "overhead",
    "ledger",
    "boot",
    "drain",
    "idle_cpu",
    "idle_mem",
    "unattributed",
    "unpriced",
    "rounding",
)
"""In the order they are stacked: what models use at the bottom, what nobody used on top."""

_LIGHT = (
    "#1d5fa8",
    "#4f9bd9",
    "#8cc5ef",
    "#c8741f",
    "#8a5a2b",
    "#e3a23c",
    "#f0c987",
    "#b4bcc6",
    "#d6dbe1",
    "#b3261e",
    "#d9544d",
    "#6b7280",
)
_DARK = (
    "#5aa2ee",
    "#3b7fc0",
    "#2b5c8c",
    "#e0914a",
    "#a77a4f",
    "#cf9a3d",
    "#8d6d33",
    "#667180",
    "#454e5a",
    "#e5534b",
    "#b8423c",
    "#9aa4af",
)


def _colours(values: tuple[str, ...]) -> str:
    return "".join(
        f".k-{account}{{fill:{value};background:{value}}}" for account, value in zip(ACCOUNTS, values, strict=True)
    )


STYLE = (
    """
:root{color-scheme:light dark;--paper:#fff;--page:#f4f6f8;--ink:#1c2530;--soft:#5b6773;--line:#e1e6eb;
--accent:#1d5fa8;--bad:#b3261e;--good:#1f7a4d}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 16px 40px}
h1{font-size:24px;margin:0}
h2{font-size:16px;margin:0 0 2px}
.sub{color:var(--soft);margin:2px 0 18px}
.note{color:var(--soft);font-size:13px;margin:0 0 8px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:14px 16px;min-width:0}
.tiles{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:12px;margin-bottom:12px}
.tile b{display:block;font-size:21px;font-weight:650;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:minmax(0,1fr);gap:12px;margin-bottom:12px}
svg{display:block;width:100%;height:auto}
.tick{fill:var(--soft);font-size:10.5px}
.name{fill:var(--ink);font-size:11px}
.grid{stroke:var(--line);stroke-width:1}
.dot{fill:var(--accent);fill-opacity:.72}
.now{fill:var(--ink);stroke:var(--paper);stroke-width:1.5}
.reach{stroke:var(--ink);stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;margin-top:8px;font-size:12.5px;color:var(--soft)}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th{color:var(--soft);font-weight:600}
th.text{text-align:left}
td.text{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:104px}
td.text:first-child{min-width:132px}
tr.bill td{font-weight:650;border-bottom:0}
.bad{color:var(--bad)}.good{color:var(--good)}
form{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:10px;align-items:end;margin-bottom:12px}
label{display:grid;gap:3px;font-size:12.5px;color:var(--soft);min-width:0}
input,select,button{font:inherit;font-size:14px;width:100%;padding:6px 8px;border:1px solid var(--line);border-radius:6px;
background:var(--page);color:var(--ink)}
button{background:var(--accent);border-color:var(--accent);color:#fff;padding:6px 18px}
footer{color:var(--soft);font-size:13px;margin-top:14px}
footer p,.findings p{margin:4px 0;overflow-wrap:anywhere}
.listing{margin-bottom:12px}
.empty{padding:40px 16px;text-align:center;color:var(--soft)}
@media(min-width:640px){.tiles{grid-template-columns:repeat(4,minmax(0,1fr))}}
@media(min-width:900px){.tile b{font-size:18px}.tiles{grid-template-columns:repeat(4,minmax(0,1fr))}
.plots{grid-template-columns:repeat(2,minmax(0,1fr))}}
"""
    + _colours(_LIGHT)
    + ".k-shared{fill:#b4bcc6;background:#b4bcc6}.k-direct{fill:#1d5fa8;background:#1d5fa8}"
    + ".k-trained{fill:#e3a23c;background:#e3a23c}"
    + ".k-cpu{fill:#8cc5ef;background:#8cc5ef}.k-perhaps{fill:#e8ddc8;background:#e8ddc8}.k-gpu{fill:#e3a23c;background:#e3a23c}"
    + """
@media(prefers-color-scheme:dark){
:root{--paper:#182029;--page:#10161d;--ink:#e6ebf0;--soft:#98a5b2;--line:#2a343f;--accent:#5aa2ee;--bad:#ff8078;--good:#63c596}
button{color:#0d1720}
"""
    + _colours(_DARK)
    + ".k-shared{fill:#667180;background:#667180}.k-direct{fill:#5aa2ee;background:#5aa2ee}"
    + ".k-trained{fill:#b57f2c;background:#b57f2c}"
    + ".k-cpu{fill:#2b5c8c;background:#2b5c8c}.k-perhaps{fill:#4d4738;background:#4d4738}.k-gpu{fill:#b57f2c;background:#b57f2c}}"
)
