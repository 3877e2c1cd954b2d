/**
 * Who can mend it: `usage`, the caller; `refused`, the party named, which said no; `peer`, the party named, which failed or is
 * not there; `bug`, we.
 */
export type ErrorCode = "usage" | "refused" | "peer" | "bug";

/** The parties a client speaks of. */
export type Party = "server0" | "server1" | "crypto-producer";

/** The one kind of error that this package throws on purpose. Its message says what happened, who must act and how. */
export class SelkieError extends Error {
  override readonly name = "SelkieError";

  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly party?: Party,
  ) {
    super(message);
  }
}

export const usage = (message: string): SelkieError => new SelkieError("usage", message);
