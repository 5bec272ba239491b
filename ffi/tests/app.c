/* An app's calls of the C interface, as far as they go without a network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sessioncap.h"

#define CHECK(holds)                                                  \
    do {                                                              \
        if (!(holds)) {                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds); \
            exit(1);                                                  \
        }                                                             \
    } while (0)

static void takes_event(SessioncapConnection *connection, SessioncapKind kind, SessioncapEvent *event) {
    CHECK(sessioncap_connection_next(connection, event));
    CHECK(event->kind == kind);
}

static void has_state(SessioncapConnection *connection, const char *code) {
    SessioncapEvent event;
    takes_event(connection, SessioncapKind_State, &event);
    CHECK(strcmp(event.text, code) == 0);
    sessioncap_event_free(&event);
    sessioncap_event_free(&event);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    SessioncapFailure failure;
    SessioncapEvent event;
    SessioncapPairings *pairings = sessioncap_pairings_new();

    /* Text that is no link. */
    CHECK(sessioncap_preview_new("https://example.com", pairings, &failure) == NULL);
    CHECK(strcmp(failure.code, "link_foreign") == 0 && strcmp(failure.advice, "ask_owner") == 0);
    sessioncap_failure_free(&failure);
    CHECK(failure.code == NULL);
    CHECK(sessioncap_preview_new(NULL, pairings, NULL) == NULL);
    CHECK(sessioncap_preview_new("\xff", pairings, NULL) == NULL);
    CHECK(sessioncap_preview_new(argv[1], NULL, &failure) == NULL);
    CHECK(strcmp(failure.code, "wiped") == 0);
    sessioncap_failure_free(&failure);

    /* A preview, accepted once. */
    SessioncapPreview *preview = sessioncap_preview_new(argv[1], pairings, &failure);
    CHECK(preview != NULL && failure.code == NULL);
    char *host = sessioncap_preview_host(preview);
    char *known = sessioncap_preview_known(preview);
    char *fingerprint = sessioncap_preview_fingerprint(preview);
    CHECK(strcmp(host, "agent.example") == 0 && strcmp(known, "nothing") == 0 && strlen(fingerprint) == 71);
    sessioncap_text_free(host);
    sessioncap_text_free(known);
    sessioncap_text_free(fingerprint);
    CHECK(sessioncap_preview_accept(preview, "a\x1b", NULL) == NULL);
    SessioncapConnection *connection = sessioncap_preview_accept(preview, "phone", &failure);
    CHECK(connection != NULL);
    CHECK(sessioncap_preview_accept(preview, "phone", NULL) == NULL);
    CHECK(sessioncap_preview_host(preview) == NULL);
    sessioncap_preview_free(preview);

    /* A resume point is 24 bytes, named before the start. */
    SessioncapBytes point;
    CHECK(!sessioncap_connection_resume_point(connection, &point) && point.data == NULL);
    uint8_t shown[24] = {1};
    CHECK(!sessioncap_connection_resume_after(connection, shown, 23, &failure));
    CHECK(strcmp(failure.code, "message_malformed") == 0);
    sessioncap_failure_free(&failure);
    CHECK(sessioncap_connection_resume_after(connection, shown, 24, &failure) && failure.code == NULL);
    CHECK(sessioncap_connection_resume_point(connection, &point));
    CHECK(point.len == 24 && memcmp(point.data, shown, 24) == 0);
    sessioncap_bytes_free(&point);

    /* The pairing is stored before anything is opened. */
    CHECK(!sessioncap_connection_next(connection, &event) && event.kind == SessioncapKind_None);
    CHECK(sessioncap_connection_wait_until(connection) == -1);
    CHECK(sessioncap_connection_start(connection, 1000));
    takes_event(connection, SessioncapKind_Store, &event);
    CHECK(event.bytes.len > 100 && strlen(event.text) == 32);
    CHECK(sessioncap_pairings_put(pairings, event.bytes.data, event.bytes.len, NULL));
    size_t len = event.bytes.len;
    uint8_t *kept = (uint8_t *)malloc(len);
    memcpy(kept, event.bytes.data, len);
    uint64_t number = event.number;
    sessioncap_event_free(&event);
    has_state(connection, "storing");
    CHECK(!sessioncap_connection_next(connection, &event));
    CHECK(sessioncap_connection_stored(connection, (uint32_t)number, 1000));
    takes_event(connection, SessioncapKind_Open, &event);
    CHECK(strcmp(event.text, "wss://agent.example/noise/ws") == 0 && event.attempt == 1);
    sessioncap_event_free(&event);
    has_state(connection, "connecting");
    CHECK(sessioncap_connection_wait_until(connection) == 21000);
    CHECK(sessioncap_connection_opened(connection, 1, 1001));
    takes_event(connection, SessioncapKind_Send, &event);
    CHECK(event.bytes.len == 256);
    sessioncap_event_free(&event);

    /* An answer that is not the agent's proves nothing, and the phone tries again. */
    CHECK(sessioncap_connection_message(connection, 1, (const uint8_t *)"x", 1, 1002));
    takes_event(connection, SessioncapKind_Close, &event);
    CHECK(event.value == 1000);
    sessioncap_event_free(&event);
    takes_event(connection, SessioncapKind_State, &event);
    CHECK(strcmp(event.text, "retrying") == 0 && strcmp(event.failure.code, "answer_unreadable") == 0);
    CHECK(sessioncap_connection_wait_until(connection) > 1002);
    sessioncap_event_free(&event);
    CHECK(sessioncap_connection_type_line(connection, 7, "ls", 1003));
    takes_event(connection, SessioncapKind_Typed, &event);
    CHECK(event.number == 7 && strcmp(event.text, "not_sent") == 0);
    sessioncap_event_free(&event);
    CHECK(!sessioncap_connection_type_line(connection, 8, "\xff", 1003));
    CHECK(!sessioncap_connection_type_key(connection, 8, "shift+a", false, 1003));
    CHECK(!sessioncap_connection_next(connection, &event));
    CHECK(sessioncap_connection_type_key(connection, 8, "ctrl+c", false, 1003));
    takes_event(connection, SessioncapKind_Typed, &event);
    sessioncap_event_free(&event);
    CHECK(!sessioncap_connection_resume_after(connection, shown, 24, &failure));
    CHECK(strcmp(failure.code, "started") == 0);
    sessioncap_failure_free(&failure);

    /* An address more is stored. */
    CHECK(!sessioncap_connection_add_address(connection, "ftp://x", &failure) && failure.code != NULL);
    sessioncap_failure_free(&failure);
    CHECK(sessioncap_connection_add_address(connection, "wss://second.example", &failure) && failure.code == NULL);
    takes_event(connection, SessioncapKind_Store, &event);
    CHECK(event.bytes.len > len);
    CHECK(sessioncap_connection_stored(connection, (uint32_t)event.number, 1003));
    sessioncap_event_free(&event);
    CHECK(!sessioncap_connection_next(connection, &event));

    /* Wiped is wiped. */
    sessioncap_connection_wipe(connection);
    sessioncap_connection_wipe(connection);
    CHECK(!sessioncap_connection_start(connection, 1004));
    CHECK(!sessioncap_connection_next(connection, &event));
    CHECK(sessioncap_connection_wait_until(connection) == -1);
    sessioncap_connection_free(connection);

    /* The list, and the pairing again from what was stored. */
    SessioncapPairing pairing;
    CHECK(sessioncap_pairings_get(pairings, 0, &pairing) && !sessioncap_pairings_get(pairings, 1, &pairing));
    CHECK(pairing.session == NULL && pairing.end == -1 && strcmp(pairing.host, "agent.example") == 0);
    CHECK(sessioncap_pairings_forget(pairings, pairing.ticket));
    CHECK(!sessioncap_pairings_forget(pairings, pairing.ticket));
    sessioncap_pairing_free(&pairing);
    sessioncap_pairing_free(&pairing);
    CHECK(sessioncap_connection_reopen(kept, len - 1, &failure) == NULL);
    CHECK(strcmp(failure.code, "stored_damaged") == 0);
    sessioncap_failure_free(&failure);
    SessioncapConnection *again = sessioncap_connection_reopen(kept, len, &failure);
    CHECK(again != NULL);
    CHECK(sessioncap_connection_start(again, 5));
    takes_event(again, SessioncapKind_Open, &event);
    sessioncap_event_free(&event);
    sessioncap_connection_free(again);
    sessioncap_connection_free(NULL);
    sessioncap_preview_free(NULL);
    sessioncap_pairings_free(pairings);
    sessioncap_pairings_free(NULL);
    sessioncap_bytes_free(NULL);
    sessioncap_text_free(NULL);
    sessioncap_failure_free(NULL);
    sessioncap_event_free(NULL);
    free(kept);
    puts("all of it holds");
    return 0;
}
