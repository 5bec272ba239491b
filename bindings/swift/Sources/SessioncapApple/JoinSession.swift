#if canImport(SwiftUI) && canImport(Security)
import Sessioncap
import SwiftUI

/// The state and the actions of "Join session", apart from its looks.
@MainActor
public final class JoinSession: ObservableObject {
    @Published public private(set) var preview: Preview?
    @Published public private(set) var state: ConnectionState?
    @Published public private(set) var failure: Failure?
    /// The last lines, as text, also for a screen reader. An app with a terminal view gives the bytes to it.
    @Published public private(set) var text = ""
    @Published public private(set) var news = ""

    private let keychain: AppleKeychain
    private let system = AppleSystem()
    private var phone: Phone?

    public init(keychain: AppleKeychain) {
        self.keychain = keychain
    }

    /// A link from the camera, from a universal link or from a paste that the person asked for. Nothing is sent.
    public func opened(link: String) {
        failure = nil
        guard let known = pairings(in: keychain) else {
            news = "The phone's keychain cannot be read now. Unlock the phone and open the link again."
            return
        }
        do {
            preview = try Sessioncap.preview(link: link, pairings: known)
        } catch let Failed.Failed(failure) {
            self.failure = failure
        } catch {}
    }

    /// The person has looked at host and fingerprint.
    public func accept(label: String) {
        do {
            guard let connection = try preview?.accept(label: label) else { return }
            preview = nil
            run(connection)
        } catch let Failed.Failed(failure) {
            self.failure = failure
        } catch {}
    }

    /// A pairing of the list.
    public func reopen(ticket: String) {
        guard case let .stored(bytes) = keychain.get(ticket: ticket) else { return }
        do {
            run(try Sessioncap.reopen(stored: .init(bytes)))
        } catch let Failed.Failed(failure) {
            self.failure = failure
        } catch {}
    }

    public func typeLine(_ line: String) { phone?.typeLine(line) }
    public func leave() { phone?.leave() }
    public func tryAgain() { phone?.start() }
    public func suspended() { phone?.suspended() }
    public func resumed() { phone?.resumed() }

    private func run(_ connection: Connection) {
        phone?.wipe()
        let phone = Phone(connection: connection, system: system, keychain: keychain) { [weak self] event in
            MainActor.assumeIsolated { self?.show(event) }
        }
        self.phone = phone
        phone.start()
    }

    private func show(_ event: Event) {
        switch event {
        case let .stateChanged(state):
            self.state = state
            failure = state.failure
        case let .screen(_, _, _, bytes):
            text = String(decoding: bytes, as: UTF8.self)
        case let .shown(_, bytes):
            text = String((text + String(decoding: bytes, as: UTF8.self)).suffix(20_000))
        case let .typed(_, fate) where fate == "unknown":
            news = "It is not known whether the last line arrived. It is not sent again."
        case let .typed(_, fate) where fate != "taken":
            news = "The last line was not delivered."
        case let .refused(sentence):
            news = sentence
        case let .happened(kind, _, text) where kind == "notification":
            news = text
        default:
            break
        }
    }
}

/// A sample screen.
public struct JoinSessionView: View {
    @StateObject private var join: JoinSession
    @State private var line = ""
    @Environment(\.scenePhase) private var phase

    public init(keychain: AppleKeychain) {
        _join = StateObject(wrappedValue: JoinSession(keychain: keychain))
    }

    public var body: some View {
        VStack(alignment: .leading, spacing: 12) {
            if let preview = join.preview {
                Text("Join a session at \((try? preview.host()) ?? "")?").font(.headline)
                Text((try? preview.fingerprint()) ?? "").font(.system(.footnote, design: .monospaced))
                if (try? preview.known()) == "host_of_another" {
                    Text("This host had another key before. Compare the key with the one on the desktop.")
                }
                Button("Join") { join.accept(label: "phone") }
            }
            if let state = join.state {
                Text(state.session ?? state.code).font(.headline)
                if let digits = state.digits {
                    Text(digits).font(.largeTitle.monospacedDigit())
                    Text("The desktop must show the same digits.")
                }
            }
            if let failure = join.failure {
                Text(failure.sentence)
                Button("Try again") { join.tryAgain() }
            }
            ScrollView { Text(join.text).font(.system(.body, design: .monospaced)).textSelection(.enabled) }
            Text(join.news).accessibilityAddTraits(.updatesFrequently)
            if join.state?.code == "live" {
                // Smart quotes and corrections would change commands.
                TextField("Line", text: $line)
                    .autocorrectionDisabled()
                    #if os(iOS)
                    .textInputAutocapitalization(.never)
                    .keyboardType(.asciiCapable)
                    #endif
                    .onSubmit {
                        join.typeLine(line)
                        line = ""
                    }
                Button("Leave") { join.leave() }
            }
        }
        .padding()
        // A scanned code arrives as a user activity, a tapped link as a URL.
        .onOpenURL { join.opened(link: $0.absoluteString) }
        .onContinueUserActivity("NSUserActivityTypeBrowsingWeb") { activity in
            if let url = activity.webpageURL { join.opened(link: url.absoluteString) }
        }
        .onChange(of: phase) { phase in
            if phase == .active { join.resumed() } else if phase == .background { join.suspended() }
        }
    }
}
#endif
