package org.sessioncap

import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import java.io.IOException
import java.security.MessageDigest
import java.security.cert.CertificateException
import java.security.cert.X509Certificate
import java.util.concurrent.TimeUnit
import javax.net.ssl.SSLContext
import javax.net.ssl.X509TrustManager
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.Response
import okhttp3.WebSocket
import okhttp3.WebSocketListener
import okio.ByteString
import okio.ByteString.Companion.toByteString

/** WebSockets of OkHttp, and a clock that counts sleep. Everything happens on the main thread. */
class OkHttpSystem : PhoneSystem {
    private val main = Handler(Looper.getMainLooper())
    private var due: Runnable? = null
    private val client = OkHttpClient.Builder()
        .followRedirects(false)
        .followSslRedirects(false)
        .readTimeout(0, TimeUnit.MILLISECONDS)
        .build()

    override fun nowMillis(): ULong = SystemClock.elapsedRealtime().toULong()

    override fun wake(at: ULong?, phone: Phone) {
        due?.let(main::removeCallbacks)
        due = null
        val pause = (at ?: return).toLong() - SystemClock.elapsedRealtime()
        val call = Runnable { phone.timePassed() }
        due = call
        main.postDelayed(call, pause.coerceAtLeast(0))
    }

    override fun open(attempt: UInt, url: String, tlsPins: List<String>, phone: Phone): PhoneSocket {
        val request = Request.Builder().url(url).header("Sec-WebSocket-Protocol", "sessioncap.1").build()
        var reports = true
        fun report(what: () -> Unit) = main.post { if (reports) what() }
        val socket = pinned(tlsPins).newWebSocket(request, object : WebSocketListener() {
            override fun onOpen(webSocket: WebSocket, response: Response) = Unit.also { report { phone.opened(attempt) } }

            override fun onMessage(webSocket: WebSocket, bytes: ByteString) =
                Unit.also { report { phone.received(attempt, bytes.toByteArray()) } }

            override fun onMessage(webSocket: WebSocket, text: String) {
                webSocket.close(1003, null)
                report { phone.closed(attempt, 1003u) }
            }

            override fun onClosing(webSocket: WebSocket, code: Int, reason: String) {
                webSocket.close(1000, null)
                report { phone.closed(attempt, code.toUShort()) }
            }

            override fun onFailure(webSocket: WebSocket, t: Throwable, response: Response?) {
                // A local network that the person has not allowed is refused with EPERM.
                val denied = t is IOException && "EPERM" in t.message.orEmpty()
                report { if (denied) phone.permissionDenied(attempt) else phone.closed(attempt, null) }
            }
        })
        return object : PhoneSocket {
            override fun send(message: ByteArray) {
                socket.send(message.toByteString())
            }

            override fun close(code: Int) {
                reports = false
                socket.close(code, null)
            }
        }
    }

    /** OkHttp's own pins add to the system's authorities; an agent's own certificate needs a trust of its own. */
    private fun pinned(pins: List<String>): OkHttpClient {
        if (pins.isEmpty()) return client
        val trust = object : X509TrustManager {
            override fun checkClientTrusted(chain: Array<X509Certificate>, kind: String) = throw CertificateException()

            override fun checkServerTrusted(chain: Array<X509Certificate>, kind: String) {
                val key = chain.first().publicKey.encoded
                val hash = MessageDigest.getInstance("SHA-256").digest(key).joinToString("") { "%02x".format(it) }
                if (hash !in pins) throw CertificateException("not the agent's key")
            }

            override fun getAcceptedIssuers(): Array<X509Certificate> = emptyArray()
        }
        val context = SSLContext.getInstance("TLS").apply { init(null, arrayOf(trust), null) }
        return client.newBuilder().sslSocketFactory(context.socketFactory, trust).hostnameVerifier { _, _ -> true }.build()
    }
}
