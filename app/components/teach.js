// Teach: classes with their clips, what was learnt, and a place to try it. The server sends the state as JSON in props.value.
const words = props.words, LONGEST_MS = 15000, SHORTEST_MS = 700;
const find = (name) => element.querySelector(`.teach-${name}`);
const classes = find("classes"), says = find("says"), meter = find("meter"), worst = find("worst"), notes = find("notes");
const tryBox = find("try"), answer = find("answer"), camera = find("camera"), cameraSays = find("camera-says"), add = find("add");
let state = { classes: [], worst: [], notes: [], says: words.invitation, accuracy: null, is_ready: false };
let drafts = [words.first, words.second];
let isRecording = false, isStale = false; // while somebody holds a button or types, its card is not drawn anew

function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
}

const change = (what) => trigger("edited", what);

const send = (files) => Promise.all([...files].map(async (file) => (await upload(file)).path));

// A place that takes clips: dropped, chosen, or recorded while its button is held.
function intake(take, name) {
    const box = make("div", "teach-intake"), input = make("input"), choose = make("label", "teach-choose", words.choose);
    Object.assign(input, { type: "file", multiple: true, accept: "video/*,image/gif,image/webp,.avi,.mkv,.ts,.flv,.wmv" });
    input.setAttribute("aria-label", words.choose_for.replace("{name}", name));
    const problem = make("p", "teach-small teach-problem");
    problem.setAttribute("role", "alert");
    async function give(files) {
        problem.textContent = "";
        try {
            take(await send(files));
        } catch (error) {
            problem.textContent = words.notSent.replace("{reason}", error?.message ?? error);
        }
    }
    input.addEventListener("change", () => {
        if (input.files.length) give([...input.files]);
        input.value = ""; // the same file may be chosen again
    });
    choose.prepend(input);
    const hold = make("button", "teach-hold", words.hold);
    hold.type = "button";
    holdToRecord(hold, (file) => give([file]), name);
    box.append(make("span", "", words.drop), choose, hold, problem);
    for (const kind of ["dragenter", "dragover"]) {
        box.addEventListener(kind, (event) => { event.preventDefault(); box.classList.add("is-over"); });
    }
    box.addEventListener("dragleave", () => box.classList.remove("is-over"));
    box.addEventListener("drop", (event) => {
        event.preventDefault();
        box.classList.remove("is-over");
        event.dataTransfer.files.length && give(event.dataTransfer.files);
    });
    return box;
}

function sayOfCamera(text) {
    cameraSays.textContent = text;
    cameraSays.hidden = !text;
}

function holdToRecord(button, take, name) {
    let recorder = null, isHeld = false, began = 0, timer = 0;
    async function start() {
        if (isHeld) return;
        isHeld = isRecording = true;
        sayOfCamera("");
        button.parentElement.before(camera); // seen on a phone, too
        try {
            if (!camera.srcObject) {
                button.textContent = words.opening;
                camera.hidden = false;
                await openCamera(camera, words, 640);
            } else {
                await camera.play();
            }
        } catch (error) {
            camera.hidden = true;
            isHeld = isRecording = false;
            button.textContent = words.hold;
            sayOfCamera(error.message);
            return;
        }
        if (!isHeld) return stop();
        const parts = [];
        recorder = new MediaRecorder(camera.srcObject);
        recorder.ondataavailable = (event) => parts.push(event.data);
        recorder.onstop = () => {
            if (performance.now() - began < SHORTEST_MS) return sayOfCamera(words.hold_longer);
            const kind = recorder.mimeType.split(";")[0], ending = kind.endsWith("mp4") ? "mp4" : "webm";
            const stamp = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
            take(new File(parts, `${name.replace(/[^\p{L}\p{N} -]/gu, "_")} ${stamp}.${ending}`, { type: kind }));
        };
        began = performance.now();
        recorder.start();
        button.classList.add("is-recording");
        button.textContent = words.recording;
        timer = setTimeout(stop, LONGEST_MS);
    }
    function stop() {
        clearTimeout(timer);
        isHeld = isRecording = false;
        button.classList.remove("is-recording");
        button.textContent = words.hold;
        if (recorder && recorder.state === "recording") recorder.stop();
        if (isStale) show();
    }
    const isKey = (event) => event.key === " " || event.key === "Enter";
    button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); start(); });
    for (const kind of ["pointerup", "pointercancel"]) button.addEventListener(kind, stop);
    button.addEventListener("keydown", (event) => isKey(event) && !event.repeat && (event.preventDefault(), start()));
    button.addEventListener("keyup", (event) => isKey(event) && stop());
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
}

function thumbnail(clip) {
    const frame = make("span", "teach-frame"), video = make("video"), name = make("span", "teach-file", clip.name);
    Object.assign(video, { src: `${clip.url}#t=0.4`, muted: true, loop: true, playsInline: true, preload: "metadata" });
    video.setAttribute("aria-hidden", "true");
    video.addEventListener("error", () => frame.classList.add("is-unplayable"));
    frame.addEventListener("pointerenter", () => video.play().catch(() => {}));
    frame.addEventListener("pointerleave", () => video.pause());
    frame.append(video, name);
    frame.title = clip.name;
    return frame;
}

function clipItem(label, clip) {
    const item = make("li", "teach-clip"), remove = make("button", "teach-remove", "\u00d7");
    remove.type = "button";
    remove.title = words.remove;
    remove.setAttribute("aria-label", `${words.remove}: ${clip.name}`);
    remove.addEventListener("click", () => change({ do: "remove", label, path: clip.path }));
    item.append(thumbnail(clip), remove);
    const mark = clip.is_unreadable ? words.problem : clip.taken_for && words.taken_for.replace("{label}", clip.taken_for);
    if (mark) item.append(make("span", "teach-mark", mark));
    return item;
}

function classCard({ name, clips }, placeholder) {
    const card = make("section", "teach-class"), head = make("div", "teach-head"), field = make("input", "teach-name");
    Object.assign(field, { defaultValue: name, placeholder: placeholder || words.name, maxLength: 60 });
    field.setAttribute("aria-label", words.name);
    field.addEventListener("change", () => {
        if (!field.value.trim()) field.value = name;
        else change({ do: "name", before: name, label: field.value });
        field.defaultValue = field.value;
        if (!name) drafts = drafts.filter((draft) => draft !== placeholder);
    });
    field.addEventListener("blur", () => setTimeout(() => isStale && show()));
    head.append(field);
    if (name) {
        const remove = make("button", "teach-remove", "\u00d7");
        remove.type = "button";
        remove.title = words.remove_class;
        remove.setAttribute("aria-label", `${words.remove_class}: ${name}`);
        remove.addEventListener("click", () => change({ do: "remove_class", label: name }));
        head.append(remove);
    }
    const list = make("ul", "teach-clips");
    list.append(...clips.map((clip) => clipItem(name, clip)));
    const take = (paths) => {
        const label = name || field.value.trim() || placeholder;
        if (!name) drafts = drafts.filter((draft) => draft !== placeholder);
        change({ do: "add", label, paths });
    };
    card.append(head, list, intake(take, name || placeholder));
    return card;
}

/** What stays of a field or button when its card is made anew: the card's name, and its own. */
function markOf(one) {
    const field = one.closest(".teach-class")?.querySelector(".teach-name");
    return field && [field.defaultValue || field.placeholder, one.tagName, one.getAttribute("aria-label") || one.textContent].join("\n");
}

function showClasses() {
    const focused = document.activeElement, isName = element.contains(focused) && focused.matches(".teach-name");
    isStale = isRecording || (isName && focused.value !== focused.defaultValue);
    if (isStale) return;
    const mark = classes.contains(focused) && markOf(focused);
    if (classes.contains(camera)) {
        cameraSays.before(camera);
        if (camera.srcObject) camera.play().catch(() => {});
    }
    classes.replaceChildren(
        ...state.classes.map((one) => classCard(one)),
        ...drafts.map((draft) => classCard({ name: "", clips: [] }, draft)),
    );
    if (mark) [...classes.querySelectorAll("input, button")].find((one) => markOf(one) === mark)?.focus();
}

function show() {
    showClasses();
    says.textContent = state.says;
    says.classList.toggle("is-busy", Boolean(state.is_busy));
    meter.hidden = state.accuracy === null;
    meter.firstElementChild.style.width = `${100 * (state.accuracy || 0)}%`;
    find("how").hidden = meter.hidden;
    const clips = state.classes.flatMap((one) => one.clips);
    const wrong = state.worst.flatMap((path) => clips.filter((clip) => clip.path === path));
    find("worst-title").hidden = !wrong.length;
    worst.replaceChildren(...wrong.map((clip) => {
        const item = make("li", "teach-clip");
        item.append(thumbnail(clip), make("span", "teach-mark", words.taken_for.replace("{label}", clip.taken_for)));
        return item;
    }));
    notes.replaceChildren(...state.notes.map((note) => make("p", "", note)));
    const isReady = state.is_ready || state.accuracy !== null; // also during the next lesson
    tryBox.hidden = !isReady;
    find("try-hint").textContent = isReady ? words.try_hint : words.try_later;
    showAnswer();
}

function showAnswer(isAsking = false) {
    const found = state.answer;
    answer.replaceChildren();
    if (isAsking) answer.append(make("p", "teach-label", words.asking));
    if (isAsking || !found) return;
    answer.append(make("p", "teach-label", found.is_unknown ? words.unknown : found.top[0].label));
    if (found.is_unknown) answer.append(make("p", "", words.nearest.replace("{label}", found.top[0].label)));
    const bars = make("ol", "teach-bars");
    bars.append(...found.top.map((one) => {
        const row = make("li"), bar = make("i");
        bar.style.width = `${100 * one.score}%`;
        row.append(make("span", "", one.label), make("span", "", percent(one.score)), bar);
        return row;
    }));
    answer.append(bars);
}

function load() {
    if (!props.value) return show();
    state = JSON.parse(props.value);
    if (state.classes.length > 1) drafts = drafts.filter((draft) => ![words.first, words.second].includes(draft));
    show();
}

tryBox.append(intake(([path]) => { showAnswer(true); trigger("asked", { path }); }, words.try));
add.addEventListener("click", () => {
    let number = 1 + state.classes.length + drafts.length;
    drafts.push(`${words.name} ${number}`);
    show();
    [...classes.querySelectorAll(".teach-name")].at(-1).focus();
});
addEventListener("pagehide", () => closeCamera(camera));
new IntersectionObserver(() => {
    if (!element.offsetParent) { closeCamera(camera); camera.hidden = true; }
}).observe(element);
if (!navigator.mediaDevices && !window.isSecureContext) sayOfCamera(words.insecure);
watch("value", load);
load();
