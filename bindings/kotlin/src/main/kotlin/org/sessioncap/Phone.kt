package org.sessioncap

/**
 * The answer of a keychain. Only [None] means that there is no pairing. [Unreadable] is final as well: the key that had
 * encrypted it is gone, as after a restore or when the screen lock was removed, and the phone pairs again.
 */
sealed interface KeychainAnswer {
    class Stored(val bytes: ByteArray) : KeychainAnswer
    data object None : KeychainAnswer
    data object NotNow : KeychainAnswer
    data object Unreadable : KeychainAnswer
}

/** A store of pairings, one entry for each ticket. */
interface Keychain {
    /** Stores in place of what is there, and reads it back. Returns whether it is stored. */
    fun put(ticket: String, stored: ByteArray): Boolean

    /** Reads an entry. */
    fun get(ticket: String): KeychainAnswer

    /** The names of all entries; null if they cannot be read now. */
    fun tickets(): List<String>?

    /** Deletes an entry. Call it only when the person forgets the pairing. */
    fun forget(ticket: String)
}

/** An open WebSocket. It reports to the [Phone] on the phone's own thread. */
interface PhoneSocket {
    fun send(message: ByteArray)
    fun close(code: Int)
}

/** Opens WebSockets without following redirects, and tells time. */
interface PhoneSystem {
    /** Opens a WebSocket. Report to `phone` with the number of the attempt. */
    fun open(attempt: UInt, url: String, tlsPins: List<String>, phone: Phone): PhoneSocket

    /** Milliseconds of a clock that counts the phone's sleep: `SystemClock.elapsedRealtime()`. */
    fun nowMillis(): ULong

    /** Calls [Phone.timePassed] at this time, in place of what was asked before; null: not at all. */
    fun wake(at: ULong?, phone: Phone)
}

/** One pairing's connection with its WebSocket and its keychain. Use it from one thread. */
class Phone(
    private val connection: Connection,
    private val system: PhoneSystem,
    private val keychain: Keychain,
    private val show: (Event) -> Unit,
) : AutoCloseable {
    private var socket: Pair<UInt, PhoneSocket>? = null
    private var ids: ULong = 0u

    val ticket: String get() = connection.ticket()
    val state: ConnectionState get() = connection.state()

    /** Up to where the output was shown: 24 bytes that are no secret, for [resumeAfter] when the app starts again. */
    val resumePoint: ByteArray? get() = connection.resumePoint()

    /** Goes on after what an earlier run of the app has shown. Before [start]. */
    fun resumeAfter(point: ByteArray) = connection.resumeAfter(point)

    /** Adds an address at which the agent may be as well, and stores it. Returns whether there was room. */
    fun addAddress(url: String): Boolean {
        val added = connection.addAddress(url)
        timePassed()
        return added
    }

    fun start() = tell { connection.start(it) }
    fun suspended() = tell { connection.suspended(it) }
    fun resumed() = tell { connection.resumed(it) }
    fun networkChanged() = tell { connection.networkChanged(it) }
    fun timePassed() = tell { connection.timePassed(it) }
    fun leave() = tell { connection.leave(it) }
    fun interrupt() = tell { connection.interrupt(it) }
    fun resize(columns: UShort, rows: UShort) = tell { connection.resize(columns, rows, it) }

    /** Types a line and Enter. Apart from keys: Android keyboards change text that was already sent. */
    fun typeLine(text: String): ULong {
        val id = ++ids
        tell { connection.typeLine(id, text, it) }
        return id
    }

    fun typeBytes(bytes: ByteArray): ULong {
        val id = ++ids
        tell { connection.typeBytes(id, bytes, it) }
        return id
    }

    /** Types a key with its modifiers, as in `ctrl+c` or `shift+tab`: one message. Names: [keyNames]. */
    fun typeKey(key: String, application: Boolean = false): ULong {
        connection.typeKey(ids + 1u, key, application, system.nowMillis())
        timePassed()
        return ++ids
    }

    fun paste(text: String, bracketed: Boolean): ULong {
        val id = ++ids
        tell { connection.paste(id, text, bracketed, it) }
        return id
    }

    // Reports of the system.

    fun opened(attempt: UInt) = tell { connection.opened(attempt, it) }
    fun received(attempt: UInt, message: ByteArray) = tell { connection.message(attempt, message, it) }
    fun closed(attempt: UInt, code: UShort?) = tell { connection.closed(attempt, code, it) }
    fun permissionDenied(attempt: UInt) = tell { connection.permissionDenied(attempt, it) }

    /** Wipes the connection. */
    override fun close() {
        system.wake(null, this)
        connection.wipe()
        connection.close()
    }

    private fun tell(input: (ULong) -> Unit) {
        input(system.nowMillis())
        while (true) {
            val events = connection.events()
            if (events.isEmpty()) break
            events.forEach(::act)
        }
        system.wake(connection.waitUntil(), this)
    }

    private fun act(event: Event) {
        when (event) {
            is Event.Open -> socket = event.attempt to system.open(event.attempt, event.url, event.tlsPins, this)
            is Event.Send -> socket?.takeIf { it.first == event.attempt }?.second?.send(event.bytes)
            is Event.Close -> socket?.takeIf { it.first == event.attempt }?.let {
                it.second.close(event.code.toInt())
                socket = null
            }
            is Event.Store -> {
                val now = system.nowMillis()
                if (keychain.put(event.ticket, event.bytes)) {
                    connection.stored(event.number, now)
                } else {
                    connection.notStored(event.number, now)
                }
            }
            else -> show(event)
        }
    }
}

/** The pairings of a keychain; null if it cannot be read now. What cannot be read stays where it is. */
fun pairingsIn(keychain: Keychain): Pairings? {
    val tickets = keychain.tickets() ?: return null
    val pairings = newPairings()
    for (ticket in tickets) {
        when (val answer = keychain.get(ticket)) {
            is KeychainAnswer.NotNow -> return null
            is KeychainAnswer.Stored -> try {
                pairings.put(answer.bytes)
            } catch (_: Failed) {
                // Of a later app, or damaged: the person decides.
            }
            else -> {}
        }
    }
    return pairings
}
