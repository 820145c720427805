// The search runs in a worker, which browsers refuse to a page that was opened as a file. On such pages a hidden frame takes the
// worker's place: it loads the worker's script, and what that posts arrives as an event of the frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(source) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = `
        <script>window.postMessage = (data) => frameElement.dispatchEvent(new MessageEvent("message", { data }))</script>
        <script src="${source}"></script>`;
      this.frame.addEventListener("message", ({ data }) => this.dispatchEvent(new MessageEvent("message", { data })));
      this.loaded = new Promise((resolve) => this.frame.addEventListener("load", resolve, { once: true }));
      document.body.append(this.frame);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
