// The table of a folder run. props.value says which run and how many rows; the rows are fetched as they come.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [tools, hint, list, none, after] = [".tools", ".hint", ".rows", ".none", ".after"].map(find);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
let run = "";
let rows = []; // with the number of their row, and their element once it was drawn
let fetching = false;
let labels = [];

const view = document.createElement("select");
view.setAttribute("aria-label", words.view);
for (const [name, text] of Object.entries(words.views)) {
    view.append(new Option(text, name));
}
const filter = Object.assign(document.createElement("input"), { type: "search", placeholder: words.filter_here });
filter.setAttribute("aria-label", words.filter);
const options = document.createElement("datalist");
options.id = "folder-labels";
tools.append(view, filter, options);
hint.textContent = words.hint;
view.addEventListener("change", draw);
filter.addEventListener("input", draw);

const scoreOf = (row) => row.top[0]?.[1] ?? -1;
const orders = {
    order: (one, other) => one.number - other.number,
    check: (one, other) => scoreOf(one) - scoreOf(other),
    sure: (one, other) => scoreOf(other) - scoreOf(one),
    name: (one, other) => one.top[0][0].localeCompare(other.top[0][0]) || scoreOf(other) - scoreOf(one),
    errors: (one, other) => one.number - other.number,
};

function part(kind, className, text = "") {
    const made = document.createElement(kind);
    made.className = className;
    made.textContent = text;
    return made;
}

function made(row) {
    const item = part("div", row.error ? "row error" : "row");
    item.setAttribute("role", "listitem");
    const picture = row.picture ? Object.assign(new Image(), { src: row.picture, alt: "" }) : part("span", "no-picture");
    const said = part("div", "said");
    said.append(part("span", "path", row.path));
    item.append(picture, said);
    if (row.error) {
        said.append(part("span", "why", row.error));
        return item;
    }
    const [label, score] = row.top[0];
    const field = Object.assign(part("input", "label"), { value: label, autocomplete: "off", spellcheck: false });
    field.setAttribute("list", options.id);
    field.setAttribute("aria-label", filled(words.right, { path: row.path }));
    field.addEventListener("focus", () => field.select());
    field.addEventListener("keydown", (event) => key(event, row, field));
    const state = part("span", "state", row.unknown ? words.unknown : "");
    const open = Object.assign(part("a", "open", words.open), { href: `/r/${row.result}`, target: "_blank", rel: "noopener" });
    open.setAttribute("aria-label", `${words.open} ${row.path}`);
    const meter = part("span", "meter");
    meter.append(part("i", ""));
    meter.firstChild.style.width = `${100 * score}%`;
    const line = part("div", "line");
    line.append(field, part("span", "percent", percent(score)));
    said.append(line, meter, state);
    item.append(open);
    return item;
}

async function key(event, row, field) {
    const shown = [...list.querySelectorAll("input.label")];
    const step = { Enter: 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
        field.value = row.right ?? row.top[0][0];
    }
    if (!step || (event.key !== "Enter" && field.value !== (row.right ?? row.top[0][0]))) {
        return; // while somebody types, the arrows choose among the labels
    }
    event.preventDefault();
    shown[shown.indexOf(field) + step]?.focus();
    if (event.key === "Enter") {
        const mine = run;
        const answer = await server.correct({ run, row: row.number, label: field.value });
        if (mine !== run) {
            return;
        }
        if (answer.gone) {
            say(words.gone);
            return;
        }
        const [label] = row.top[0];
        row.right = answer.label || undefined;
        field.value = answer.label || label;
        field.closest(".row").dataset.state = answer.label ? (answer.label === label ? "accepted" : "corrected") : "";
        field.closest(".row").querySelector(".state").textContent =
            !answer.label ? "" : answer.label === label ? words.accepted : filled(words.corrected, { label });
        offer(answer.count);
    }
}

function offer(count) {
    after.hidden = !count;
    const link = Object.assign(part("a", "", words.download), {
        href: `/folder/${run}/corrections.csv`,
        download: "corrections.csv",
    });
    const teach = Object.assign(part("button", "primary teach-these", words.teach), { type: "button" });
    teach.addEventListener("click", () => trigger("teach", { run }));
    const other = part("p", "other-way");
    const [before, behind] = words.or.split("{download}");
    other.append(before, link, behind, " ", part("code", "", words.command));
    after.replaceChildren(part("p", "", filled(words.corrections, { count })), teach, other);
}

function draw() {
    const wanted = filter.value.trim().toLowerCase();
    const fitting = rows.filter(
        (row) =>
            (view.value === "errors" ? row.error : view.value === "order" || !row.error) &&
            (!wanted || `${row.path} ${row.right ?? row.top[0]?.[0] ?? ""}`.toLowerCase().includes(wanted)),
    );
    fitting.sort(orders[view.value]);
    const focused = document.activeElement;
    fitting.forEach((row, place) => {
        row.element ??= made(row);
        if (list.children[place] !== row.element) {
            list.insertBefore(row.element, list.children[place] ?? null);
        }
    });
    while (list.children.length > fitting.length) {
        list.lastChild.remove();
    }
    if (list.contains(focused) && document.activeElement !== focused) {
        focused.focus(); // moving an element takes the focus from it
    }
    say(rows.length && !fitting.length ? words.none : "");
}

function say(text) {
    none.hidden = !text;
    none.textContent = text;
}

async function load() {
    const value = props.value || {};
    if ((value.run || "") !== run) {
        run = value.run || "";
        rows = [];
        list.replaceChildren();
        offer(0);
        view.value = "order";
        filter.value = "";
    }
    tools.hidden = hint.hidden = !value.count;
    while (!fetching && run && rows.length < (props.value?.count ?? 0)) {
        const mine = run;
        fetching = true;
        const answer = await server.rows({ run, from: rows.length }).catch(() => ({ rows: [] }));
        fetching = false;
        if (mine !== run) {
            continue;
        }
        if (answer.labels) {
            labels = answer.labels;
            options.replaceChildren(...labels.map((label) => new Option(label)));
        }
        if (answer.gone) {
            say(words.gone);
        }
        if (!answer.rows.length) {
            break;
        }
        rows.push(...answer.rows.map((row, place) => ({ ...row, number: rows.length + place })));
        draw();
    }
}

watch("value", load);
load();
