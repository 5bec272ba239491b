// Runs a connection over a WebSocket and a keychain of the app's. No framework of Apple's is needed here.

import Foundation

/// The answer of a keychain. Only `none` means that there is no pairing: a phone that was restarted and not unlocked yet
/// answers `notNow`, or has a keychain that looks empty; a new key then would be another phone.
public enum KeychainAnswer: Sendable {
    case stored([UInt8])
    case none
    case notNow
}

/// A store of pairings, one entry for each ticket.
public protocol Keychain: Sendable {
    /// Stores in place of what is there, and reads it back. Returns whether it is stored.
    func put(ticket: String, stored: [UInt8]) -> Bool
    /// Reads an entry.
    func get(ticket: String) -> KeychainAnswer
    /// The names of all entries; nil if they cannot be read now.
    func tickets() -> [String]?
    /// Deletes an entry. Call it only when the person forgets the pairing.
    func forget(ticket: String)
}

/// An open WebSocket. It reports to the `Phone` on the phone's own queue.
public protocol PhoneSocket: AnyObject {
    func send(_ message: [UInt8])
    func close(code: UInt16)
}

/// Opens WebSockets without following redirects, and tells time.
public protocol PhoneSystem: AnyObject {
    /// Opens a WebSocket. Report to `phone` with the number of the attempt.
    func open(attempt: UInt32, url: String, tlsPins: [String], phone: Phone) -> PhoneSocket
    /// Milliseconds of a clock that counts the phone's sleep.
    func nowMillis() -> UInt64
    /// Calls `phone.timePassed()` at this time, in place of what was asked before; nil: not at all.
    func wake(at millis: UInt64?, phone: Phone)
}

/// One pairing's connection with its WebSocket and its keychain. Use it from one queue.
public final class Phone {
    private let connection: Connection
    private let system: PhoneSystem
    private let keychain: Keychain
    private let show: (Event) -> Void
    private var socket: (attempt: UInt32, socket: PhoneSocket)?
    private var ids: UInt64 = 0

    /// `show` is called with every event that is for the person.
    public init(connection: Connection, system: PhoneSystem, keychain: Keychain, show: @escaping (Event) -> Void) {
        self.connection = connection
        self.system = system
        self.keychain = keychain
        self.show = show
    }

    public var ticket: String? { try? connection.ticket() }
    public var state: ConnectionState? { try? connection.state() }

    /// Up to where the output was shown: 24 bytes that are no secret, for `resumeAfter` when the app starts again.
    public var resumePoint: [UInt8]? { (try? connection.resumePoint())?.map { [UInt8]($0) } }

    /// Goes on after what an earlier run of the app has shown. Before `start`.
    public func resumeAfter(_ point: [UInt8]) throws { try connection.resumeAfter(point: .init(point)) }

    /// Adds an address at which the agent may be as well, and stores it. Returns whether there was room.
    @discardableResult
    public func addAddress(_ url: String) throws -> Bool {
        let added = try connection.addAddress(url: url)
        tell { try connection.timePassed(nowMillis: $0) }
        return added
    }

    public func start() { tell { try connection.start(nowMillis: $0) } }
    public func suspended() { tell { try connection.suspended(nowMillis: $0) } }
    public func resumed() { tell { try connection.resumed(nowMillis: $0) } }
    public func networkChanged() { tell { try connection.networkChanged(nowMillis: $0) } }
    public func timePassed() { tell { try connection.timePassed(nowMillis: $0) } }
    public func leave() { tell { try connection.leave(nowMillis: $0) } }
    public func interrupt() { tell { try connection.interrupt(nowMillis: $0) } }

    public func resize(columns: UInt16, rows: UInt16) {
        tell { try connection.resize(columns: columns, rows: rows, nowMillis: $0) }
    }

    @discardableResult
    public func typeLine(_ text: String) -> UInt64 {
        ids += 1
        tell { try connection.typeLine(id: ids, text: text, nowMillis: $0) }
        return ids
    }

    @discardableResult
    public func typeBytes(_ bytes: [UInt8]) -> UInt64 {
        ids += 1
        tell { try connection.typeBytes(id: ids, bytes: .init(bytes), nowMillis: $0) }
        return ids
    }

    /// Types a key with its modifiers, as in `ctrl+c` or `shift+tab`: one message. Names: `keyNames()`.
    @discardableResult
    public func typeKey(_ key: String, application: Bool = false) throws -> UInt64 {
        try connection.typeKey(id: ids + 1, key: key, application: application, nowMillis: system.nowMillis())
        ids += 1
        timePassed()
        return ids
    }

    @discardableResult
    public func paste(_ text: String, bracketed: Bool) -> UInt64 {
        ids += 1
        tell { try connection.paste(id: ids, text: text, bracketed: bracketed, nowMillis: $0) }
        return ids
    }

    /// Wipes the connection.
    public func wipe() {
        system.wake(at: nil, phone: self)
        connection.wipe()
    }

    // Reports of the system.

    public func opened(attempt: UInt32) {
        tell { try connection.opened(attempt: attempt, nowMillis: $0) }
    }

    public func received(attempt: UInt32, _ message: [UInt8]) {
        tell { try connection.message(attempt: attempt, bytes: .init(message), nowMillis: $0) }
    }

    public func closed(attempt: UInt32, code: UInt16?) {
        tell { try connection.closed(attempt: attempt, code: code, nowMillis: $0) }
    }

    public func permissionDenied(attempt: UInt32) {
        tell { try connection.permissionDenied(attempt: attempt, nowMillis: $0) }
    }

    /// A connection that is closed takes nothing more.
    private func tell(_ input: (UInt64) throws -> Void) {
        guard (try? input(system.nowMillis())) != nil else { return }
        while let events = try? connection.events(), !events.isEmpty {
            events.forEach(act)
        }
        system.wake(at: (try? connection.waitUntil()) ?? nil, phone: self)
    }

    private func act(_ event: Event) {
        switch event {
        case let .open(attempt, url, tlsPins):
            socket = (attempt, system.open(attempt: attempt, url: url, tlsPins: tlsPins, phone: self))
        case let .send(attempt, bytes):
            if let socket, socket.attempt == attempt { socket.socket.send([UInt8](bytes)) }
        case let .close(attempt, code):
            if let socket, socket.attempt == attempt {
                socket.socket.close(code: code)
                self.socket = nil
            }
        case let .store(number, ticket, bytes):
            let now = system.nowMillis()
            if keychain.put(ticket: ticket, stored: [UInt8](bytes)) {
                try? connection.stored(number: number, nowMillis: now)
            } else {
                try? connection.notStored(number: number, nowMillis: now)
            }
        default:
            show(event)
        }
    }
}

/// The pairings of a keychain; nil if it cannot be read now. Entries of a later app, and damaged ones, stay where they are.
public func pairings(in keychain: Keychain) -> Pairings? {
    guard let tickets = keychain.tickets() else { return nil }
    let pairings = newPairings()
    for ticket in tickets {
        switch keychain.get(ticket: ticket) {
        case .notNow: return nil
        case .none: continue
        case let .stored(bytes): try? pairings.put(stored: .init(bytes))
        }
    }
    return pairings
}
