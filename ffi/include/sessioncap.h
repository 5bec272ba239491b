/* The C interface of sessioncap. Written from ffi/src/c.rs by the test `the_header_is_that_of_the_source`. */

#ifndef SESSIONCAP_H
#define SESSIONCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The kind of an event.
typedef enum {
  // There is none.
  SessioncapKind_None = 0,
  // Open a WebSocket at `text`, without following redirects and without an `Origin`: `attempt`; `names` are the TLS
  // pins, separated by spaces.
  SessioncapKind_Open = 1,
  // Send `bytes` as one binary message: `attempt`.
  SessioncapKind_Send = 2,
  // Close the WebSocket with the code `value`, if it is still there: `attempt`.
  SessioncapKind_Close = 3,
  // Store `bytes` under the name `text`: `number`.
  SessioncapKind_Store = 4,
  // The state of the connection: `text` is its code; `detail` the digits or the session; `names` the operations, separated
  // by spaces; `number` the seconds left, or the milliseconds of the next attempt; `value` the agent's time; `failure`.
  SessioncapKind_State = 5,
  // Output to show, `bytes`; `number` bytes are missing before it.
  SessioncapKind_Shown = 6,
  // The screen, `bytes`; `value` bytes do not come, -1 if it is not known how many; `columns` and `rows`.
  SessioncapKind_Screen = 7,
  // The fate of typed bytes: `number` is the app's id, `text` the fate.
  SessioncapKind_Typed = 8,
  // The answer to a request: `number` is the app's id, `text` the JSON object.
  SessioncapKind_Answered = 9,
  // A request that is not answered: `number` is the app's id, `text` the fate.
  SessioncapKind_NotAnswered = 10,
  // The agent refused a change of the size, an interrupt, or the output: `text` is the sentence.
  SessioncapKind_Refused = 11,
  // Something happened in the session: `text` is the kind, `value` its value, `detail` the text of a notification.
  SessioncapKind_Happened = 12,
} SessioncapKind;

// A connection.
typedef struct SessioncapConnection SessioncapConnection;

// The list of pairings.
typedef struct SessioncapPairings SessioncapPairings;

// A link before the person has accepted it.
typedef struct SessioncapPreview SessioncapPreview;

// Bytes that the library has made. Free them with `sessioncap_bytes_free`, which wipes them.
typedef struct {
  // The first byte; null if there are none.
  uint8_t *data;
  // Number of bytes.
  size_t len;
} SessioncapBytes;

// An error. Free it with `sessioncap_failure_free`. The texts are null if nothing did.
typedef struct {
  // A stable name.
  char *code;
  // One sentence for the person, without a full stop.
  char *sentence;
  // `ask_again`, `ask_owner`, `forget` or `update`.
  char *advice;
} SessioncapFailure;

// One event. Free it with `sessioncap_event_free`. Texts are null where the kind has none.
typedef struct {
  // Which.
  SessioncapKind kind;
  // The number of an attempt.
  uint32_t attempt;
  // By the kind.
  uint64_t number;
  // By the kind.
  int64_t value;
  // Of a screen.
  uint16_t columns;
  // Of a screen.
  uint16_t rows;
  // By the kind.
  char *text;
  // By the kind.
  char *detail;
  // By the kind.
  char *names;
  // By the kind.
  SessioncapBytes bytes;
  // Of a state.
  SessioncapFailure failure;
} SessioncapEvent;

// A pairing, for a list. Free it with `sessioncap_pairing_free`.
typedef struct {
  // The name of the keychain's entry.
  char *ticket;
  // The agent's key.
  char *agent;
  // The agent's host.
  char *host;
  // The session; null while the link is not redeemed.
  char *session;
  // The operations, separated by spaces.
  char *ops;
  // When it ends by the agent's clock, seconds since 1970; -1 if it is not known.
  int64_t end;
} SessioncapPairing;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Wipes and frees bytes, and sets them to none. Null is nothing.
//
// # Safety
// `bytes` is null, or bytes of this library.
void sessioncap_bytes_free(SessioncapBytes *bytes);

// Frees a text. Null is nothing.
//
// # Safety
// `text` is null, or a text that a function of this library has returned.
void sessioncap_text_free(char *text);

// Frees the texts of a failure, and sets them to null. Null is nothing.
//
// # Safety
// `failure` is null, or was written by this library.
void sessioncap_failure_free(SessioncapFailure *failure);

// Wipes and frees what an event has, and sets it to none. Null is nothing.
//
// # Safety
// `event` is null, or was written by `sessioncap_connection_next`.
void sessioncap_event_free(SessioncapEvent *event);

// Makes an empty list of pairings. Free it with `sessioncap_pairings_free`.
SessioncapPairings *sessioncap_pairings_new(void);

// Adds what the keychain has returned.
//
// # Safety
// The rules of all functions; `data` are `len` bytes.
bool sessioncap_pairings_put(const SessioncapPairings *pairings,
                             const uint8_t *data,
                             size_t len,
                             SessioncapFailure *failure);

// Writes the pairing at this place of the list, the latest at 0. Returns whether there is one.
//
// # Safety
// The rules of all functions; `pairing` can be written to.
bool sessioncap_pairings_get(const SessioncapPairings *pairings, size_t place, SessioncapPairing *pairing);

// Frees the texts of a pairing, and sets them to null. Null is nothing.
//
// # Safety
// `pairing` is null, or was written by `sessioncap_pairings_get`.
void sessioncap_pairing_free(SessioncapPairing *pairing);

// Forgets the pairing of a ticket. Returns whether there was one. The app deletes the keychain's entry.
//
// # Safety
// The rules of all functions.
bool sessioncap_pairings_forget(const SessioncapPairings *pairings, const char *ticket);

// Wipes and frees a list. Null is nothing.
//
// # Safety
// The rules of all functions; no other thread uses the list.
void sessioncap_pairings_free(SessioncapPairings *pairings);

// Reads a link as it was scanned, opened or pasted. Nothing is sent. Returns null and a failure if it is none. Free it
// with `sessioncap_preview_free`.
//
// # Safety
// The rules of all functions.
SessioncapPreview *sessioncap_preview_new(const char *link,
                                          const SessioncapPairings *pairings,
                                          SessioncapFailure *failure);

// Returns the host that will be connected to; null after it was accepted. Free it with `sessioncap_text_free`.
//
// # Safety
// The rules of all functions.
char *sessioncap_preview_host(const SessioncapPreview *preview);

// Returns the agent's key as people compare it; null after it was accepted. Free it with `sessioncap_text_free`.
//
// # Safety
// The rules of all functions.
char *sessioncap_preview_fingerprint(const SessioncapPreview *preview);

// Returns `link`, `agent`, `host_of_another` or `nothing`; null after it was accepted. Free it with
// `sessioncap_text_free`.
//
// # Safety
// The rules of all functions.
char *sessioncap_preview_known(const SessioncapPreview *preview);

// Makes the connection of a link that the person has accepted. Returns null and a failure if it was accepted before, or
// the label is none. Free the preview as well, and the connection with `sessioncap_connection_free`.
//
// # Safety
// The rules of all functions.
SessioncapConnection *sessioncap_preview_accept(const SessioncapPreview *preview,
                                                const char *label,
                                                SessioncapFailure *failure);

// Wipes and frees a preview. Null is nothing.
//
// # Safety
// The rules of all functions; no other thread uses the preview.
void sessioncap_preview_free(SessioncapPreview *preview);

// Makes the connection of a stored pairing. Returns null and a failure if the bytes are none. Free it with
// `sessioncap_connection_free`.
//
// # Safety
// The rules of all functions; `data` are `len` bytes.
SessioncapConnection *sessioncap_connection_reopen(const uint8_t *data,
                                                   size_t len,
                                                   SessioncapFailure *failure);

// Begins; or, where the connection waits or has stopped, tries again now. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_start(const SessioncapConnection *connection,
                                 uint64_t now_millis);

// The WebSocket of an attempt is open. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_opened(const SessioncapConnection *connection,
                                  uint32_t attempt,
                                  uint64_t now_millis);

// The WebSocket could not be opened, was closed or broke; `code` is that of the agent's close frame, or -1. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_closed(const SessioncapConnection *connection,
                                  uint32_t attempt,
                                  int32_t code,
                                  uint64_t now_millis);

// The phone's system does not let the app reach the local network. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_permission_denied(const SessioncapConnection *connection,
                                             uint32_t attempt,
                                             uint64_t now_millis);

// The bytes of this request are in the keychain. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_stored(const SessioncapConnection *connection,
                                  uint32_t number,
                                  uint64_t now_millis);

// The bytes of this request could not be stored now. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_not_stored(const SessioncapConnection *connection,
                                      uint32_t number,
                                      uint64_t now_millis);

// Time has passed. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_time_passed(const SessioncapConnection *connection, uint64_t now_millis);

// The app goes to the background. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_suspended(const SessioncapConnection *connection, uint64_t now_millis);

// The app is in the foreground again. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_resumed(const SessioncapConnection *connection, uint64_t now_millis);

// The phone has another network. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_network_changed(const SessioncapConnection *connection, uint64_t now_millis);

// Interrupts what runs. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_interrupt(const SessioncapConnection *connection, uint64_t now_millis);

// The size of the phone's screen, in characters. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_resize(const SessioncapConnection *connection,
                                  uint16_t columns,
                                  uint16_t rows,
                                  uint64_t now_millis);

// Leaves. The session goes on. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_leave(const SessioncapConnection *connection, uint64_t now_millis);

// A binary message came. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions; `data` are `len` bytes.
bool sessioncap_connection_message(const SessioncapConnection *connection,
                                   uint32_t attempt,
                                   const uint8_t *data,
                                   size_t len,
                                   uint64_t now_millis);

// Types bytes, as a terminal encodes keys. Returns false if the connection was wiped.
//
// # Safety
// The rules of all functions; `data` are `len` bytes.
bool sessioncap_connection_type_bytes(const SessioncapConnection *connection,
                                      uint64_t id,
                                      const uint8_t *data,
                                      size_t len,
                                      uint64_t now_millis);

// Types one line, and Enter. Control characters are left out. Returns false if the connection was wiped or it is no text.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_type_line(const SessioncapConnection *connection,
                                     uint64_t id,
                                     const char *line,
                                     uint64_t now_millis);

// Types a pasted text. Control characters are left out but tabs and ends of lines. Returns false if the connection was
// wiped or it is no text.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_paste(const SessioncapConnection *connection,
                                 uint64_t id,
                                 const char *pasted,
                                 bool bracketed,
                                 uint64_t now_millis);

// Types one key with the modifiers that are held, as in `ctrl+c`, `shift+tab` or `f5`. `application` says that the program
// has asked for application cursor keys. Returns false if the connection was wiped or no terminal sends such a key: then no
// event comes.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_type_key(const SessioncapConnection *connection,
                                    uint64_t id,
                                    const char *key,
                                    bool application,
                                    uint64_t now_millis);

// Sends a request, a JSON object. Returns false if the connection was wiped or it is no text.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_request(const SessioncapConnection *connection,
                                   uint64_t id,
                                   const char *json,
                                   uint64_t now_millis);

// Writes up to where the output was shown, 24 bytes that are no secret. Returns false, and no bytes, if there was no output
// or the connection was wiped. Free them with `sessioncap_bytes_free`.
//
// # Safety
// The rules of all functions; `point` can be written to.
bool sessioncap_connection_resume_point(const SessioncapConnection *connection,
                                        SessioncapBytes *point);

// Goes on after what an earlier run of the app has shown. Call it before `sessioncap_connection_start`. Returns false and a
// failure if it is no resume point, the connection has begun, or it was wiped.
//
// # Safety
// The rules of all functions; `data` are `len` bytes.
bool sessioncap_connection_resume_after(const SessioncapConnection *connection,
                                        const uint8_t *data,
                                        size_t len,
                                        SessioncapFailure *failure);

// Adds an address at which the agent may be as well; a `Store` event follows. Returns whether it is among the addresses now:
// false without a failure if no more fit, with one if it is no address or the connection was wiped.
//
// # Safety
// The rules of all functions.
bool sessioncap_connection_add_address(const SessioncapConnection *connection,
                                       const char *url,
                                       SessioncapFailure *failure);

// Writes the next event. Returns false, and the event `None`, if there is none or the connection was wiped.
//
// # Safety
// The rules of all functions; `event` can be written to.
bool sessioncap_connection_next(const SessioncapConnection *connection, SessioncapEvent *event);

// Returns until when nothing happens by itself, milliseconds; -1 if nothing will, or the connection was wiped.
//
// # Safety
// The rules of all functions.
int64_t sessioncap_connection_wait_until(const SessioncapConnection *connection);

// Wipes a connection. Every later call fails as wiped. Wiping twice is nothing.
//
// # Safety
// The rules of all functions.
void sessioncap_connection_wipe(const SessioncapConnection *connection);

// Wipes and frees a connection. Null is nothing.
//
// # Safety
// The rules of all functions; no other thread uses the connection.
void sessioncap_connection_free(SessioncapConnection *connection);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SESSIONCAP_H */
