// The camera of the browser, for every component that needs it. `words` are the sentences of texts.py.
async function openCamera(video, words, side) {
    if (!navigator.mediaDevices) throw new Error(window.isSecureContext ? words.no_camera : words.insecure);
    const wanted = { audio: false, video: { width: { ideal: side }, facingMode: "user" } };
    try {
        video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
        if (error.name === "NotAllowedError") throw new Error(words.refused);
        throw new Error(error.name === "NotFoundError" ? words.no_camera : words.camera_busy);
    }
    await video.play();
}

function closeCamera(video) {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
}
