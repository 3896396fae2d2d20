// Browsers do not load web workers from file://; there, the search runs in a hidden iframe instead.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement('iframe')
      frame.hidden = true
      this.scope = new Promise((resolve, reject) => {
        frame.addEventListener('load', () => {
          const scope = frame.contentWindow
          scope.postMessage = data => this.dispatchEvent(new MessageEvent('message', { data }))
          const script = frame.contentDocument.createElement('script')
          script.addEventListener('load', () => resolve(scope))
          script.addEventListener('error', reject)
          script.src = url
          frame.contentDocument.body.append(script)
        }, { once: true })
      })
      document.body.append(frame)
    }

    postMessage(data) {
      this.scope.then(scope => scope.dispatchEvent(new scope.MessageEvent('message', { data })))
    }
  }
}
