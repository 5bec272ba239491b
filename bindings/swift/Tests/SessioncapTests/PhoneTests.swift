import XCTest

@testable import Sessioncap

/// A keychain with the rules of the real one: an entry is updated or added, and can be locked.
final class FakeKeychain: Keychain, @unchecked Sendable {
    var entries: [String: [UInt8]] = [:]
    var isLocked = false

    func put(ticket: String, stored: [UInt8]) -> Bool {
        if !isLocked { entries[ticket] = stored }
        return !isLocked
    }

    func get(ticket: String) -> KeychainAnswer {
        if isLocked { return .notNow }
        return entries[ticket].map { .stored($0) } ?? .none
    }

    func tickets() -> [String]? { isLocked ? nil : Array(entries.keys) }
    func forget(ticket: String) { entries[ticket] = nil }
}

final class FakeSystem: PhoneSystem {
    var now: UInt64 = 1_000
    var opened: [String] = []
    var woken: UInt64?

    func open(attempt: UInt32, url: String, tlsPins: [String], phone: Phone) -> PhoneSocket {
        opened.append(url)
        return FakeSocket()
    }

    func nowMillis() -> UInt64 { now }
    func wake(at millis: UInt64?, phone: Phone) { woken = millis }
}

final class FakeSocket: PhoneSocket {
    func send(_ message: [UInt8]) {}
    func close(code: UInt16) {}
}

final class PhoneTests: XCTestCase {
    /// The link of tests/vectors/valid/link-own-plain.json.
    private func link() throws -> String {
        let here = URL(fileURLWithPath: #filePath)
        let root = (0..<5).reduce(here) { url, _ in url.deletingLastPathComponent() }
        let file = root.appendingPathComponent("tests/vectors/valid/link-own-plain.json")
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any]
        return try XCTUnwrap(json?["text"] as? String)
    }

    func testNothingIsOpenedBeforeThePairingIsStored() throws {
        let (keychain, system) = (FakeKeychain(), FakeSystem())
        keychain.isLocked = true
        let connection = try preview(link: link(), pairings: newPairings()).accept(label: "phone")
        let phone = Phone(connection: connection, system: system, keychain: keychain) { _ in }
        phone.start()
        XCTAssertEqual(system.opened, [])
        XCTAssertEqual(phone.state?.failure?.code, "not_stored")
        keychain.isLocked = false
        phone.start()
        XCTAssertEqual(system.opened.count, 1)
        XCTAssertEqual(keychain.entries.count, 1)
        XCTAssertNotNil(system.woken)
    }

    func testALockedKeychainIsNotAnEmptyOne() {
        let keychain = FakeKeychain()
        keychain.isLocked = true
        XCTAssertNil(pairings(in: keychain))
        keychain.isLocked = false
        XCTAssertEqual(try pairings(in: keychain)?.list().count, 0)
    }

    func testWhatIsNoLinkHasACode() {
        XCTAssertThrowsError(try preview(link: "https://example.com", pairings: newPairings())) { error in
            guard case let Failed.Failed(failure) = error else { return XCTFail() }
            XCTAssertEqual(failure.code, "link_foreign")
        }
    }
}
