// Plays what a visitor chose: props.value is its address. Where the browser cannot, it says so in place of the picture.
const [video, sorry] = element.children;

function load() {
    const address = props.value || "";
    sorry.hidden = true;
    video.hidden = !address;
    if (address) {
        video.src = address;
    } else {
        video.removeAttribute("src");
        video.load();
    }
}

function giveUp() {
    if (video.hasAttribute("src")) {
        video.hidden = true;
        sorry.hidden = false;
    }
}

video.addEventListener("error", giveUp);
video.addEventListener("loadedmetadata", () => video.videoWidth || giveUp()); // it knows the sound, not the picture
watch("value", load);
load();
