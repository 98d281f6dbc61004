// Whether the server answers.
export const server = $state({ gone: false });
