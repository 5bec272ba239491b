#if canImport(Security)
import Foundation
import Security
import Sessioncap

/// Pairings as generic passwords: readable after the first unlock, on this device only, never synchronised. They survive
/// the app being deleted; after a restore on another phone they are missing, and the phone pairs again.
public struct AppleKeychain: Keychain {
    private let service: String

    public init(service: String) {
        self.service = service
    }

    /// The attributes that identify an entry, and no others: one more would hide entries of an earlier version.
    private func query(_ ticket: String?) -> [CFString: Any] {
        var query: [CFString: Any] = [
            kSecClass: kSecClassGenericPassword,
            kSecAttrService: service,
            kSecUseDataProtectionKeychain: true,
        ]
        if let ticket { query[kSecAttrAccount] = ticket }
        return query
    }

    public func put(ticket: String, stored: [UInt8]) -> Bool {
        let data = Data(stored)
        // Updated first: an entry that is deleted and added again can be lost between the two.
        var status = SecItemUpdate(query(ticket) as CFDictionary, [kSecValueData: data] as CFDictionary)
        if status == errSecItemNotFound {
            var item = query(ticket)
            item[kSecValueData] = data
            item[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
            item[kSecAttrSynchronizable] = false
            status = SecItemAdd(item as CFDictionary, nil)
        }
        guard status == errSecSuccess, case let .stored(read) = get(ticket: ticket) else { return false }
        return read == stored
    }

    public func get(ticket: String) -> KeychainAnswer {
        var item = query(ticket)
        item[kSecReturnData] = true
        var found: CFTypeRef?
        switch SecItemCopyMatching(item as CFDictionary, &found) {
        case errSecSuccess:
            guard let data = found as? Data else { return .notNow }
            return .stored([UInt8](data))
        case errSecItemNotFound:
            return isUnlocked ? .none : .notNow
        default:
            return .notNow
        }
    }

    public func tickets() -> [String]? {
        var all = query(nil)
        all[kSecMatchLimit] = kSecMatchLimitAll
        all[kSecReturnAttributes] = true
        var found: CFTypeRef?
        switch SecItemCopyMatching(all as CFDictionary, &found) {
        case errSecSuccess:
            let entries = found as? [[CFString: Any]] ?? []
            return entries.compactMap { $0[kSecAttrAccount] as? String }.filter { $0 != Self.canary }
        case errSecItemNotFound:
            return isUnlocked ? [] : nil
        default:
            return nil
        }
    }

    public func forget(ticket: String) {
        SecItemDelete(query(ticket) as CFDictionary)
    }

    private static let canary = "unlocked"

    /// Before the first unlock after a restart a query may say that there is nothing. An entry that can be written and read
    /// shows that the keychain is really open.
    private var isUnlocked: Bool {
        var item = query(Self.canary)
        let update = SecItemUpdate(item as CFDictionary, [kSecValueData: Data([1])] as CFDictionary)
        if update == errSecSuccess { return true }
        guard update == errSecItemNotFound else { return false }
        item[kSecValueData] = Data([1])
        item[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
        return SecItemAdd(item as CFDictionary, nil) == errSecSuccess
    }
}
#endif
