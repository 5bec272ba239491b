#if canImport(Darwin)
import CryptoKit
import Foundation
import Security
import Sessioncap

/// WebSockets of URLSession, and a clock that counts sleep. Everything happens on the main queue.
public final class AppleSystem: PhoneSystem {
    private var timer: DispatchSourceTimer?

    public init() {}

    public func nowMillis() -> UInt64 {
        // CLOCK_MONOTONIC_RAW goes on while the phone sleeps; CLOCK_UPTIME_RAW does not.
        clock_gettime_nsec_np(CLOCK_MONOTONIC_RAW) / 1_000_000
    }

    public func wake(at millis: UInt64?, phone: Phone) {
        timer?.cancel()
        timer = nil
        guard let millis else { return }
        let now = nowMillis()
        let timer = DispatchSource.makeTimerSource(queue: .main)
        timer.schedule(deadline: .now() + .milliseconds(Int(millis > now ? millis - now : 0)))
        timer.setEventHandler { [weak phone] in phone?.timePassed() }
        timer.resume()
        self.timer = timer
    }

    public func open(attempt: UInt32, url: String, tlsPins: [String], phone: Phone) -> PhoneSocket {
        URLSocket(attempt: attempt, url: url, tlsPins: tlsPins, phone: phone)
    }
}

final class URLSocket: NSObject, PhoneSocket, URLSessionWebSocketDelegate {
    private let attempt: UInt32
    private let tlsPins: [String]
    private weak var phone: Phone?
    private var task: URLSessionWebSocketTask?
    private var session: URLSession?

    init(attempt: UInt32, url: String, tlsPins: [String], phone: Phone) {
        self.attempt = attempt
        self.tlsPins = tlsPins
        self.phone = phone
        super.init()
        guard let url = URL(string: url) else { return report(nil) }
        let configuration = URLSessionConfiguration.ephemeral
        configuration.waitsForConnectivity = false
        let session = URLSession(configuration: configuration, delegate: self, delegateQueue: .main)
        let task = session.webSocketTask(with: url, protocols: ["sessioncap.1"])
        // A frame of the protocol has at most 65,535 bytes.
        task.maximumMessageSize = 65_535
        self.session = session
        self.task = task
        task.resume()
        receive()
    }

    func send(_ message: [UInt8]) {
        task?.send(.data(Data(message))) { [weak self] error in
            if let error { DispatchQueue.main.async { self?.failed(error) } }
        }
    }

    func close(code: UInt16) {
        phone = nil
        task?.cancel(with: .init(rawValue: Int(code)) ?? .normalClosure, reason: nil)
        session?.finishTasksAndInvalidate()
    }

    private func receive() {
        task?.receive { [weak self] result in
            DispatchQueue.main.async {
                guard let self else { return }
                switch result {
                case let .success(.data(data)):
                    self.phone?.received(attempt: self.attempt, [UInt8](data))
                    self.receive()
                case .success:
                    self.task?.cancel(with: .unsupportedData, reason: nil)
                    self.report(1003)
                case let .failure(error):
                    self.failed(error)
                }
            }
        }
    }

    private func report(_ code: UInt16?) {
        let (attempt, phone) = (attempt, phone)
        self.phone = nil
        DispatchQueue.main.async { phone?.closed(attempt: attempt, code: code) }
        session?.invalidateAndCancel()
    }

    private func failed(_ error: Error) {
        let code = task?.closeCode.rawValue ?? 0
        guard code == 0 else { return report(UInt16(clamping: code)) }
        // A network that the person has not allowed looks like this; the connection decides what the first time means.
        let underlying = (error as NSError).userInfo["_NSURLErrorNWPathKey"]
        if "\(underlying ?? "")".contains("Local network prohibited") {
            let (attempt, phone) = (attempt, phone)
            self.phone = nil
            session?.invalidateAndCancel()
            phone?.permissionDenied(attempt: attempt)
        } else {
            report(nil)
        }
    }

    func urlSession(_: URLSession, webSocketTask _: URLSessionWebSocketTask, didOpenWithProtocol _: String?) {
        phone?.opened(attempt: attempt)
    }

    func urlSession(
        _: URLSession, webSocketTask _: URLSessionWebSocketTask, didCloseWith code: URLSessionWebSocketTask.CloseCode,
        reason _: Data?
    ) {
        report(UInt16(clamping: code.rawValue))
    }

    /// No redirect is followed.
    func urlSession(
        _: URLSession, task _: URLSessionTask, willPerformHTTPRedirection _: HTTPURLResponse, newRequest _: URLRequest,
        completionHandler: @escaping (URLRequest?) -> Void
    ) {
        completionHandler(nil)
    }

    /// A certificate that the agent has made itself is taken by its key. What protects the session is the channel inside.
    func urlSession(
        _: URLSession, didReceive challenge: URLAuthenticationChallenge,
        completionHandler: @escaping (URLSession.AuthChallengeDisposition, URLCredential?) -> Void
    ) {
        guard !tlsPins.isEmpty, let trust = challenge.protectionSpace.serverTrust,
            let chain = SecTrustCopyCertificateChain(trust) as? [SecCertificate], let leaf = chain.first,
            let info = subjectPublicKeyInfo(of: SecCertificateCopyData(leaf) as Data)
        else { return completionHandler(.performDefaultHandling, nil) }
        let hash = SHA256.hash(data: info).map { String(format: "%02x", $0) }.joined()
        if tlsPins.contains(hash) {
            completionHandler(.useCredential, URLCredential(trust: trust))
        } else {
            completionHandler(.cancelAuthenticationChallenge, nil)
        }
    }
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280 section 4.1): the seventh field of what is signed, where the version
/// is present.
func subjectPublicKeyInfo(of certificate: Data) -> Data? {
    func field(_ bytes: Data) -> (head: Int, length: Int)? {
        guard bytes.count >= 2 else { return nil }
        let first = bytes[bytes.startIndex + 1]
        if first < 0x80 { return (2, Int(first)) }
        let count = Int(first & 0x7f)
        guard (1...3).contains(count), bytes.count >= 2 + count else { return nil }
        let length = bytes.dropFirst(2).prefix(count).reduce(0) { $0 << 8 | Int($1) }
        return (2 + count, length)
    }
    func inside(_ bytes: Data) -> Data? {
        guard let (head, length) = field(bytes), bytes.count >= head + length else { return nil }
        return bytes.dropFirst(head).prefix(length)
    }
    guard let signed = inside(certificate), var rest = inside(signed) else { return nil }
    var skip = rest.first == 0xa0 ? 6 : 5
    while skip > 0 {
        guard let (head, length) = field(rest), rest.count >= head + length else { return nil }
        rest = rest.dropFirst(head + length)
        skip -= 1
    }
    guard let (head, length) = field(rest), rest.count >= head + length else { return nil }
    return Data(rest.prefix(head + length))
}
#endif
