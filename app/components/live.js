// Live: sends the camera's pictures, asks for answers, shows them. The server keeps the last seconds only.
const SENDS_EVERY_MS = 250, HISTORY_SECONDS = 60, QUALITY = 0.8, LATE_PICTURES = 40;
const words = props.words;
const find = (name) => element.querySelector(`.live-${name}`);
const video = find("video"), button = find("start"), word = find("word"), label = find("label"), sure = find("sure");
const bars = find("bars"), strip = find("strip"), changes = find("changes"), view = find("view"), pace = find("pace");
const root = element.querySelector(".live");
const canvas = document.createElement("canvas");
let run = null; // the camera that is watched now

async function post(path, body) {
    const kind = typeof body === "string" ? "application/json" : "application/octet-stream";
    const answer = await fetch(new URL(`live${path}`, document.baseURI), {
        method: "POST", body, headers: { "Content-Type": kind },
    });
    const value = await answer.json().catch(() => null);
    if (answer.ok) return value;
    throw Object.assign(new Error((value && value.message) || words.no_answer), { status: answer.status });
}

function say(text, isError = false) {
    word.textContent = text;
    word.hidden = !text;
    word.classList.toggle("is-error", isError);
}

async function start() {
    stop("");
    const mine = (run = { history: [], pictures: [], began: performance.now() });
    button.textContent = words.stop;
    root.classList.add("is-on");
    say(words.opening);
    try {
        await openCamera(video, words, 640);
        Object.assign(mine, await post("", JSON.stringify({ fast: view.value === "quick" })));
    } catch (error) {
        if (run === mine) stop(error.message, true);
        return;
    }
    if (run !== mine) return;
    say(words.looking.replace("{seconds}", mine.window_seconds.toFixed(1)));
    mine.timer = setInterval(() => take(mine), 1000 / mine.frames_per_second);
    repeat(mine, SENDS_EVERY_MS, send);
    repeat(mine, 1000 * mine.every_seconds, ask);
}

function stop(text, isError = false) {
    const ended = run;
    run = null;
    closeCamera(video);
    if (ended) {
        clearInterval(ended.timer);
        if (ended.id) post(`/${ended.id}/end`, "{}").catch(() => {});
    }
    button.textContent = words.start;
    root.classList.remove("is-on");
    say(text, isError);
}

// Runs a step again and again, no sooner than so many milliseconds after its last beginning.
async function repeat(mine, every, step) {
    let refusals = 0;
    while (run === mine) {
        const began = performance.now();
        try {
            await step(mine);
            refusals = 0;
        } catch (error) {
            refusals += 1;
            if (run === mine && (error.status === 404 || refusals > 20)) stop(error.message, true);
            else if (run === mine && error.status === 503) say(words.busy);
        }
        await new Promise((done) => setTimeout(done, Math.max(20, every - (performance.now() - began))));
    }
}

function take(mine) {
    if (run !== mine || !video.videoWidth || mine.pictures.length > LATE_PICTURES) return;
    const scale = Math.min(1, mine.short_side / Math.min(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(scale * video.videoWidth);
    canvas.height = Math.round(scale * video.videoHeight);
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, canvas.width, canvas.height);
    const seconds = (performance.now() - mine.began) / 1000;
    canvas.toBlob((picture) => picture && mine.pictures.push([seconds, picture]), "image/jpeg", QUALITY);
}

async function send(mine) {
    const pictures = mine.pictures.splice(0).sort((one, other) => one[0] - other[0]);
    if (!pictures.length) return;
    const parts = [];
    for (const [seconds, picture] of pictures) {
        const head = new DataView(new ArrayBuffer(12));
        head.setFloat64(0, seconds, true);
        head.setUint32(8, picture.size, true);
        parts.push(head.buffer, picture);
    }
    await post(`/${mine.id}/pictures`, new Blob(parts));
}

async function ask(mine) {
    const { answer } = await post(`/${mine.id}/answer`, "{}");
    if (run !== mine || !answer) return;
    mine.history.push(answer);
    while (answer.end_seconds - mine.history[0].end_seconds > HISTORY_SECONDS) mine.history.shift();
    show(mine, answer);
}

function show(mine, answer) {
    const [best, second] = answer.top;
    const isFlat = !answer.unknown && answer.sure === words.not_sure && second;
    label.textContent = answer.unknown
        ? words.unknown
        : isFlat ? words.unsure.replace("{a}", best.label).replace("{b}", second.label) : best.label;
    sure.textContent = isFlat
        ? words.unsure_scores.replace("{a}", percent(best.score)).replace("{b}", percent(second.score))
        : words.score.replace("{sure}", answer.sure[0].toUpperCase() + answer.sure.slice(1)).replace("{score}", percent(best.score));
    say("");
    root.classList.add("has-answer");
    bars.replaceChildren(...answer.top.map((one) => {
        const row = document.createElement("li");
        const name = document.createElement("span"), value = document.createElement("span"), bar = document.createElement("i");
        name.textContent = one.label;
        value.textContent = percent(one.score);
        bar.style.width = `${100 * one.score}%`;
        row.append(name, value, bar);
        return row;
    }));
    drawHistory(mine.history);
    const late = (performance.now() - mine.began) / 1000 - answer.end_seconds;
    pace.textContent = words.pace.replace("{seconds}", answer.seconds.toFixed(1)).replace("{late}", late.toFixed(1));
}

// Runs of one action over the last minute: a strip, and the changes in words, the last one first.
function drawHistory(history) {
    const end = history.at(-1).end_seconds, runs = [];
    for (const { end_seconds, top: [best] } of history) {
        const last = runs.at(-1);
        if (last && last.label === best.label) Object.assign(last, { to: end_seconds, score: Math.max(last.score, best.score) });
        else runs.push({ label: best.label, from: last ? last.to : Math.max(0, end_seconds - 0.5), to: end_seconds, score: best.score });
    }
    strip.replaceChildren(...runs.map((one) => {
        const part = document.createElement("span");
        part.style.left = `${100 * Math.max(0, 1 - (end - one.from) / HISTORY_SECONDS)}%`;
        part.style.right = `${100 * (end - one.to) / HISTORY_SECONDS}%`;
        part.style.setProperty("--hue", hueOf(one.label));
        part.style.opacity = 0.35 + 0.65 * one.score;
        part.title = one.label;
        return part;
    }));
    changes.replaceChildren(...runs.slice(-4).reverse().map((one) => {
        const row = document.createElement("li");
        row.style.setProperty("--hue", hueOf(one.label));
        const ago = Math.round(end - one.from);
        row.textContent = `${one.label}, ${ago < 1 ? words.now : words.ago.replace("{seconds}", ago)}`;
        return row;
    }));
}

function hueOf(text) {
    let hash = 0;
    for (const letter of text) hash = (31 * hash + letter.codePointAt(0)) % 3600;
    return hash / 10;
}

button.addEventListener("click", () => (run ? stop("") : start()));
view.addEventListener("change", () => run && start());
addEventListener("pagehide", () => run && stop(""));
// Nobody sees a hidden page or another tab of it: the camera is switched off.
document.addEventListener("visibilitychange", () => document.hidden && run && stop(words.paused));
new IntersectionObserver(([seen]) => !seen.isIntersecting && !element.offsetParent && run && stop(words.paused)).observe(element);
if (!navigator.mediaDevices) say(window.isSecureContext ? words.no_camera : words.insecure, true);
