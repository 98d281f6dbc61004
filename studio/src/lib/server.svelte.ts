// Whether the server answers; and how often it came back, which is when all that is shown is computed again: a server
// that was started anew has kept nothing.
export const server = $state({ gone: false, back: 0 });
