package org.sessioncap

import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.text.KeyboardActions
import androidx.compose.foundation.text.KeyboardOptions
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.Text
import androidx.compose.material3.TextField
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.semantics.LiveRegionMode
import androidx.compose.ui.semantics.liveRegion
import androidx.compose.ui.semantics.semantics
import androidx.compose.ui.text.font.FontFamily
import androidx.compose.ui.text.input.ImeAction
import androidx.compose.ui.text.input.KeyboardCapitalization
import androidx.compose.ui.text.input.KeyboardType
import androidx.compose.ui.unit.dp

/** The state and the actions of "Join session", apart from its looks. */
class JoinSession(private val keychain: Keychain, private val system: PhoneSystem) {
    var preview by mutableStateOf<Preview?>(null)
        private set
    var state by mutableStateOf<ConnectionState?>(null)
        private set
    var failure by mutableStateOf<Failure?>(null)
        private set
    var text by mutableStateOf("")
        private set
    var news by mutableStateOf("")
        private set
    private var phone: Phone? = null

    /** A link from the camera or an intent. An intent that comes again after a rotation is the same link: the pairing goes on. */
    fun opened(link: String) = catching {
        val known = pairingsIn(keychain)
        if (known == null) {
            news = "The pairings cannot be read now. Unlock the phone and open the link again."
        } else {
            preview = org.sessioncap.preview(link, known)
        }
    }

    /** The person has looked at host and fingerprint. */
    fun accept(label: String) = catching {
        preview?.accept(label)?.let(::run)
        preview = null
    }

    /** A pairing of the list. */
    fun reopen(ticket: String) = catching {
        (keychain.get(ticket) as? KeychainAnswer.Stored)?.let { run(org.sessioncap.reopen(it.bytes)) }
    }

    fun typeLine(line: String) = catching { phone?.typeLine(line) }
    fun leave() = catching { phone?.leave() }
    fun tryAgain() = catching { phone?.start() }

    private fun run(connection: Connection) {
        phone?.close()
        phone = Phone(connection, system, keychain, ::show).also { it.start() }
    }

    private fun show(event: Event) {
        when (event) {
            is Event.StateChanged -> {
                state = event.state
                failure = event.state.failure
            }
            is Event.Screen -> text = event.bytes.decodeToString()
            is Event.Shown -> text = (text + event.bytes.decodeToString()).takeLast(20_000)
            is Event.Typed -> when (event.fate) {
                "taken" -> {}
                "unknown" -> news = "It is not known whether the last line arrived. It is not sent again."
                else -> news = "The last line was not delivered."
            }
            is Event.Refused -> news = event.sentence
            is Event.Happened -> if (event.kind == "notification") news = event.text
            else -> {}
        }
    }

    private fun catching(what: () -> Unit) {
        try {
            what()
        } catch (error: Failed.Failed) {
            failure = error.failure
        }
    }
}

/** A sample screen. */
@Composable
fun JoinSessionScreen(join: JoinSession) {
    var line by remember { mutableStateOf("") }
    Column(Modifier.padding(16.dp)) {
        join.preview?.let {
            Text("Join a session at ${it.host()}?")
            Text(it.fingerprint(), fontFamily = FontFamily.Monospace)
            if (it.known() == "host_of_another") {
                Text("This host had another key before. Compare the key with the one on the desktop.")
            }
            Button({ join.accept("phone") }) { Text("Join") }
        }
        join.state?.let {
            Text(it.session ?: it.code)
            it.digits?.let { digits ->
                Text(digits, fontFamily = FontFamily.Monospace)
                Text("The desktop must show the same digits.")
            }
        }
        join.failure?.let {
            Text(it.sentence)
            Button({ join.tryAgain() }) { Text("Try again") }
        }
        Text(join.text, Modifier.weight(1f).verticalScroll(rememberScrollState()), fontFamily = FontFamily.Monospace)
        Text(join.news, Modifier.semantics { liveRegion = LiveRegionMode.Polite })
        if (join.state?.code == "live") {
            // Corrections would change commands.
            TextField(
                line,
                { line = it },
                singleLine = true,
                keyboardOptions = KeyboardOptions(
                    capitalization = KeyboardCapitalization.None,
                    autoCorrectEnabled = false,
                    keyboardType = KeyboardType.Ascii,
                    imeAction = ImeAction.Send,
                ),
                keyboardActions = KeyboardActions(onSend = {
                    join.typeLine(line)
                    line = ""
                }),
            )
            Button({ join.leave() }) { Text("Leave") }
        }
    }
}
