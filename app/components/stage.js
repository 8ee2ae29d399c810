// Shows the state of the visitor's run. An event of a run that is not the current one is dropped: what is shown belongs to
// the clip that is shown. props.value is an event of the server; the file that was chosen comes from the intake.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [headline, confidence, doing, left, progress, bars] = [
    ".headline", ".confidence", ".doing", ".left", ".progress", ".bars",
].map(find);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const UNHEARD_POLLS = 5;
const numberOf = (identity) => Number(String(identity ?? "").split(".")[0]) || 0;

let choice = 0; // number of the last choice; events of earlier ones are dropped
let run = ""; // identity of its run, once the server has made one
let shownState = "empty";
let loaded = ""; // identity of the run whose maps the player has
let size = null;
let sent = null; // what the server needs to begin with the clip

const player = makePlayer(find(".player"), words.player, {
    ask: (seconds, x, y) => question("point", { seconds, x, y }),
    evidence: (label) => question("evidence", { label }),
    check: (shown) => question("check", shown),
    region: (box) => again({ region: box.map((edge) => edge.toFixed(3)).join(",") }),
    elsewhere: (seconds) => again({ seconds }),
    time: (seconds) => document.dispatchEvent(new CustomEvent("player-time", { detail: seconds })),
    size: (seconds, width, height) => {
        size = { seconds: seconds.toFixed(1), width, height };
    },
});

async function question(kind, about) {
    const asked = run;
    if (asked.startsWith("kept.")) {
        return { words: words.kept };
    }
    let reply;
    try {
        reply = await server[kind]({ ...about, run: asked });
    } catch {
        return { words: words.offline };
    }
    if (asked === run && reply.state === "gone") {
        lost(reply.words);
    }
    return reply;
}

function again(changes) {
    trigger("again", { ...changes, choice: chooseAnew() });
}

// From here on nothing of the runs so far is shown any more.
function chooseAnew() {
    run = "";
    choice += 1;
    setState("sending");
    clearAnswer();
    player.renew();
    busy(words.reading);
    return choice;
}

function clearAnswer() {
    headline.textContent = confidence.textContent = doing.textContent = "";
    bars.replaceChildren();
    find(".details").hidden = true;
    find(".details").open = false;
    find(".part").hidden = true;
    loaded = "";
    document.dispatchEvent(new CustomEvent("run-cleared"));
}

function setState(state) {
    shownState = state;
    element.closest("#result")?.setAttribute("data-state", state);
    element.closest("#flow")?.setAttribute("data-clip", state === "empty" ? "none" : "chosen");
    find(".player").hidden = false;
    find(".stop-run").hidden = !["sending", "waiting"].includes(state);
    find(".run-again").hidden = state !== "stopped";
}

// No answer, and why: the headline says what is wrong, the sentence what to do. Where only another clip helps, the intake
// has its full size again, below.
function fail({ title, words: sentence, refused }) {
    setState("error");
    clearAnswer();
    headline.textContent = title ?? words.goneTitle;
    idle(sentence.replace(`${find(".clip-name").textContent}: `, "")); // the name stands above
    find(".run-again").hidden = refused;
    if (refused) {
        element.closest("#flow")?.setAttribute("data-clip", "refused");
    }
}

function busy(text, share = null, more = "") {
    doing.textContent = text;
    left.textContent = more;
    progress.hidden = false;
    progress.classList.toggle("unknown", share === null);
    progress.firstElementChild.style.width = share === null ? "" : `${Math.max(4, 100 * share)}%`;
    share === null ? progress.removeAttribute("aria-valuenow") : progress.setAttribute("aria-valuenow", Math.round(100 * share));
    progress.setAttribute("aria-label", [text, more].filter(Boolean).join(", "));
}

function idle(text = "") {
    doing.textContent = text;
    left.textContent = "";
    progress.hidden = true;
}

function lost(text) {
    if (headline.textContent) {
        setState("lost"); // the answer stays
        idle(text ?? words.lost);
    } else {
        fail({ title: words.goneTitle, words: text ?? words.lost, refused: true });
    }
}

document.addEventListener("clip-chosen", async ({ detail: { name, url, sent: sending } }) => {
    size = sent = null;
    const mine = chooseAnew();
    find(".clip-name").textContent = name;
    busy(words.sending);
    player.showClip(url);
    let what;
    try {
        what = await sending;
    } catch (error) {
        what = { refused: filled(words.notSent, { reason: error?.message ?? error }), title: words.notSentTitle };
    }
    if (mine !== choice) {
        return;
    }
    if (what.refused) {
        fail({ title: what.title ?? words.tooLargeTitle, words: what.refused, refused: true });
    } else {
        sent = what;
        trigger("begin", { ...what, choice: mine });
    }
});
document.addEventListener("settings-changed", () => shownState !== "empty" && again({}));
document.addEventListener("player-moment", (event) => player.moment(event.detail));
document.addEventListener("player-captions", (event) => player.captions(event.detail));
document.addEventListener("look-here", (event) => again({ seconds: event.detail }));

// An earlier result, by its address: it stands on the stage like an answer of now.
document.addEventListener("result-opened", ({ detail }) => {
    chooseAnew();
    player.showClip("");
    accept({ ...detail, choice, run: `kept.${detail.result}` });
});

function accept(event) {
    if (!event || event.choice !== choice) {
        return; // of another clip, or of a run that was stopped
    }
    if (event.run) {
        run = event.run;
        find(".clip-name").textContent = event.name;
        find(".part").hidden = !event.region;
    }
    if (event.state === "waiting") {
        if (shownState !== "sending") {
            return; // its answer was faster
        }
        setState("waiting");
        busy(words.reading);
        poll(run);
    } else if (event.state === "error") {
        fail(event);
    } else if (event.state === "answer") {
        answer(event);
    }
}

function answer(event) {
    setState("answer");
    headline.textContent = event.headline;
    confidence.textContent = event.confidence;
    find(".details").hidden = false;
    find(".details ul").replaceChildren(...event.details.map((line) => textNode("li", line)));
    document.dispatchEvent(new CustomEvent("run-scored", { detail: event }));
    if (!event.player) {
        drawBars(event.top);
        find(".player").hidden = Boolean(event.words); // a kept result of a network without maps
        event.words ? idle(event.words) : busy(words.drawing);
        return;
    }
    idle();
    if (loaded !== event.run) {
        drawBars(event.top);
        loaded = event.run;
        player.load(event.player, event);
        document.dispatchEvent(new CustomEvent("run-answered", { detail: event }));
        if (event.long) {
            trigger("long", {});
        }
    }
}

function drawBars(top) {
    bars.replaceChildren(
        ...top.map(([label, score], place) => {
            const bar = textNode("button", "", "answer-bar");
            bar.type = "button";
            bar.setAttribute("aria-pressed", place === 0);
            bar.title = words.why;
            const [fill, name, number] = [textNode("i", ""), textNode("span", label, "label"), textNode("span", percent(score), "percent")];
            fill.style.width = `${100 * score}%`;
            bar.append(name, number, fill);
            bar.addEventListener("click", async () => {
                if (await player.explain(label)) {
                    for (const one of bars.children) {
                        one.setAttribute("aria-pressed", one === bar);
                    }
                }
            });
            return bar;
        }),
    );
}

// An answer that the server has given and that is still not here after some polls was lost on its way: it is asked for
// again.
async function poll(identity) {
    for (let unheard = 0; run === identity && shownState === "waiting"; ) {
        const standing = await server.standing(identity).catch(() => ({ state: "offline" }));
        if (run === identity && shownState === "waiting") {
            tell(standing);
            unheard = standing.said ? unheard + 1 : 0;
            if (unheard % UNHEARD_POLLS === UNHEARD_POLLS - 1) {
                trigger("unheard", {});
            }
        }
        await new Promise((done) => setTimeout(done, 400));
    }
}

function tell({ state, seconds, count, done }) {
    if (state === "gone") {
        lost();
    } else if (state === "offline") {
        busy(words.offline);
    } else if (state === "ahead" && count) {
        busy(filled(count === 1 ? words.ahead.one : words.ahead.many, { count }), done, filled(words.ahead.left, { seconds }));
    } else {
        const parts = [size && filled(words.size, size), seconds && filled(words.left, { seconds })];
        busy(state === "network" ? words.network : words.reading, done ?? null, parts.filter(Boolean).join(" · "));
    }
}

find(".stop-run").addEventListener("click", () => {
    const stopped = run;
    chooseAnew();
    setState("stopped");
    idle(words.stopped);
    player.say("");
    if (stopped) {
        server.stop(stopped).catch(() => {});
    }
});
find(".run-again").addEventListener("click", () => {
    if (run || !sent) {
        again({});
    } else {
        trigger("begin", { ...sent, choice: chooseAnew() }); // it was refused before there was a run
    }
});
find(".whole-picture").addEventListener("click", () => again({ region: "" }));
watch("value", () => accept(props.value));
setState("empty");
accept(props.value);
