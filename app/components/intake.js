// Takes a clip: dropped anywhere on the page, pasted, recorded or picked. It announces the clip at once, with a promise of
// what the server needs to begin; the stage does the rest.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [input, says, viewfinder, recordButton] = ["input", ".camera-says", ".viewfinder", ".record"].map(find);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const COUNTDOWN = 3;
const LONGEST_RECORDING = 30;
const RECORDED_WIDTH = 640;
let address = null;

function announce(name, url, sent) {
    document.dispatchEvent(new CustomEvent("clip-chosen", { detail: { name, url, sent } }));
}

function take(file) {
    if (address) {
        URL.revokeObjectURL(address);
    }
    address = URL.createObjectURL(file);
    const megabytes = file.size / 2 ** 20;
    const refused = filled(words.tooLarge, { name: file.name, megabytes: Math.ceil(megabytes), most: words.mostMegabytes });
    const sent = megabytes > words.mostMegabytes ? Promise.resolve({ refused }) : upload(file).then(({ path }) => ({ path }));
    announce(file.name, address, sent);
}

input.addEventListener("change", () => {
    if (input.files.length) {
        take(input.files[0]);
        input.value = "";
    }
});
find(".choose").addEventListener("click", () => input.click());

// Drop and paste work on the whole page, while the tab of this intake is shown.
const isShown = () => element.offsetParent !== null;
const hasFiles = (transfer) => [...(transfer?.types ?? [])].includes("Files");
let entered = 0;
function dropping(is) {
    element.closest("#flow")?.setAttribute("data-dropping", is ? "yes" : "no");
    find(".big").textContent = is ? words.dropNow : words.drop;
    find(".another").textContent = is ? words.dropNow : words.another;
}

document.addEventListener("dragenter", (event) => {
    if (isShown() && hasFiles(event.dataTransfer)) {
        entered += 1;
        dropping(true);
    }
});
document.addEventListener("dragleave", (event) => {
    if (hasFiles(event.dataTransfer)) {
        entered = Math.max(entered - 1, 0);
        dropping(entered > 0);
    }
});
document.addEventListener("dragover", (event) => isShown() && hasFiles(event.dataTransfer) && event.preventDefault());
document.addEventListener("drop", (event) => {
    entered = 0;
    dropping(false);
    if (isShown() && hasFiles(event.dataTransfer)) {
        event.preventDefault();
        event.dataTransfer.files.length && take(event.dataTransfer.files[0]);
    }
});
document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (isShown() && file) {
        event.preventDefault();
        take(file);
    }
});

for (const button of element.querySelectorAll(".sample")) {
    const video = button.querySelector("video");
    const play = () => video.play().catch(() => {});
    const rest = () => {
        video.pause();
        video.currentTime = 0;
    };
    button.addEventListener("pointerenter", play);
    button.addEventListener("focus", play);
    button.addEventListener("pointerleave", rest);
    button.addEventListener("blur", rest);
    button.addEventListener("click", () => {
        announce(button.dataset.name, video.src, Promise.resolve({ sample: Number(button.dataset.sample) }));
    });
}

// The camera: one press, a countdown, and another press to stop.
let recording = null;

function tellCamera(text) {
    says.hidden = !text;
    says.textContent = text;
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function record() {
    if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
        tellCamera(words.insecure);
        return;
    }
    let stream;
    try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { width: { ideal: RECORDED_WIDTH } } });
    } catch (error) {
        tellCamera(filled(words.refused, { reason: error.message }));
        return;
    }
    const mine = (recording = { stopped: false });
    viewfinder.srcObject = stream;
    viewfinder.hidden = false;
    viewfinder.play().catch(() => {});
    recordButton.textContent = words.stop;
    recordButton.classList.add("recording");
    for (let seconds = COUNTDOWN; seconds > 0 && !mine.stopped; seconds--) {
        tellCamera(filled(words.recordWait, { seconds }));
        await pause(1000);
    }
    const parts = [];
    if (!mine.stopped) {
        const recorder = new MediaRecorder(stream);
        recorder.ondataavailable = ({ data }) => parts.push(data);
        const ended = new Promise((done) => (recorder.onstop = done));
        recorder.start();
        const began = performance.now();
        while (!mine.stopped && performance.now() - began < 1000 * LONGEST_RECORDING) {
            tellCamera(filled(words.recording, { seconds: Math.round((performance.now() - began) / 1000) }));
            await pause(100);
        }
        recorder.stop();
        await ended;
        const kind = recorder.mimeType.split(";")[0] || "video/webm";
        take(new File(parts, `recording.${kind.includes("mp4") ? "mp4" : "webm"}`, { type: kind }));
    }
    for (const track of stream.getTracks()) {
        track.stop();
    }
    viewfinder.srcObject = null;
    viewfinder.hidden = true;
    recordButton.textContent = words.record;
    recordButton.classList.remove("recording");
    tellCamera("");
    recording = null;
}

recordButton.addEventListener("click", () => {
    if (recording) {
        recording.stopped = true;
    } else {
        record();
    }
});
