// Takes clips for a tab: dropped or pasted while it is shown, picked, a sample, or a folder of the server. It says to the
// headline of its tab what is being sent, then triggers "chosen" with what the server needs.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [input, drop] = ["input[type=file]", ".drop"].map(find);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
let choice = 0; // uploads of an earlier choice are dropped

function say(state, text) {
    element.closest(".tool-flow").dispatchEvent(new CustomEvent("say", { detail: { state, headline: text, share: null } }));
}

async function take(all) {
    const files = words.multiple ? [...all] : [...all].slice(0, 1);
    const mine = ++choice;
    if (all.length > files.length) {
        say("error", words.several);
        return;
    }
    const large = files.find((file) => file.size > words.mostMegabytes * 2 ** 20);
    if (large) {
        say("error", filled(words.tooLarge, { name: large.name, megabytes: Math.ceil(large.size / 2 ** 20), most: words.mostMegabytes }));
        return;
    }
    const paths = [];
    try {
        for (const file of files) {
            const name = file.name;
            say("working", files.length > 1 ? filled(words.sendingMany, { name, number: paths.length + 1, count: files.length }) : filled(words.sending, { name }));
            paths.push((await upload(file)).path);
            if (mine !== choice) {
                return;
            }
        }
    } catch (error) {
        mine === choice && say("error", filled(words.notSent, { reason: error?.message ?? error }));
        return;
    }
    trigger("chosen", { paths });
}

input.addEventListener("change", () => {
    if (input.files.length) {
        take([...input.files]);
        input.value = "";
    }
});
find(".choose").addEventListener("click", () => input.click());

// What is dropped is meant for the zone below the pointer, or else for that of the whole tab.
const target = words.wholeTab ? document : element;
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const isMine = (event) => element.offsetParent !== null && hasFiles(event) && !event.defaultPrevented;
let entered = 0;
const dropping = (is) => drop.classList.toggle("is-over", is);
target.addEventListener("dragenter", (event) => {
    if (isMine(event)) {
        entered += 1;
        dropping(true);
    }
});
target.addEventListener("dragleave", (event) => {
    if (hasFiles(event)) {
        entered = Math.max(entered - 1, 0);
        dropping(entered > 0);
    }
});
target.addEventListener("dragover", (event) => isMine(event) && event.preventDefault());
target.addEventListener("drop", (event) => {
    entered = 0;
    dropping(false);
    if (isMine(event) && event.dataTransfer.files.length) {
        event.preventDefault();
        take(event.dataTransfer.files);
    }
});
if (words.wholeTab) {
    document.addEventListener("paste", (event) => {
        const files = event.clipboardData?.files;
        if (element.offsetParent !== null && files?.length) {
            event.preventDefault();
            take(files);
        }
    });
}

for (const button of element.querySelectorAll(".sample")) {
    const video = button.querySelector("video");
    const rest = () => {
        video.pause();
        video.currentTime = 0;
    };
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => video.play().catch(() => {}));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, rest);
    button.addEventListener("click", () => {
        choice += 1;
        trigger("chosen", { sample: Number(button.dataset.sample) });
    });
}

const folder = find("[data-take]");
if (folder) {
    const field = find("input[type=text]");
    const chosen = () => {
        choice += 1;
        trigger("chosen", { folder: field?.value.trim() || "." });
    };
    folder.addEventListener("click", chosen);
    field?.addEventListener("keydown", (event) => event.key === "Enter" && chosen());
}
