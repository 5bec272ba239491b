package org.sessioncap

import android.content.Context
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import android.util.AtomicFile
import java.io.File
import java.io.IOException
import java.security.GeneralSecurityException
import java.security.KeyStore
import javax.crypto.AEADBadTagException
import javax.crypto.Cipher
import javax.crypto.KeyGenerator
import javax.crypto.SecretKey
import javax.crypto.spec.GCMParameterSpec

/**
 * Pairings as files that are encrypted by a key of the Android Keystore, in a folder that is not backed up. The key never
 * leaves the phone: after a restore the files cannot be read, and the phone pairs again. StrongBox is not asked for: it
 * fails in too many ways.
 */
class AndroidKeychain(context: Context, private val alias: String = "sessioncap") : Keychain {
    private val folder = File(context.noBackupFilesDir, "sessioncap").apply { mkdirs() }

    private fun file(ticket: String): AtomicFile {
        require(ticket.all { it in '0'..'9' || it in 'a'..'f' }) { "not a ticket" }
        return AtomicFile(File(folder, ticket))
    }

    private fun key(): SecretKey? =
        KeyStore.getInstance("AndroidKeyStore").apply { load(null) }.getKey(alias, null) as SecretKey?

    private fun newKey(): SecretKey {
        val spec = KeyGenParameterSpec.Builder(alias, KeyProperties.PURPOSE_ENCRYPT or KeyProperties.PURPOSE_DECRYPT)
            .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
            .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
            .setKeySize(256)
            .build()
        return KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, "AndroidKeyStore").apply { init(spec) }.generateKey()
    }

    override fun put(ticket: String, stored: ByteArray): Boolean = try {
        val cipher = Cipher.getInstance("AES/GCM/NoPadding").apply { init(Cipher.ENCRYPT_MODE, key() ?: newKey()) }
        cipher.updateAAD(ticket.toByteArray())
        val sealed = byteArrayOf(cipher.iv.size.toByte()) + cipher.iv + cipher.doFinal(stored)
        val file = file(ticket)
        val stream = file.startWrite()
        try {
            stream.write(sealed)
            file.finishWrite(stream)
        } catch (error: IOException) {
            file.failWrite(stream)
            throw error
        }
        (get(ticket) as? KeychainAnswer.Stored)?.bytes?.contentEquals(stored) == true
    } catch (_: GeneralSecurityException) {
        false
    } catch (_: IOException) {
        false
    } catch (_: RuntimeException) {
        // Vendors' keystores throw many types.
        false
    }

    override fun get(ticket: String): KeychainAnswer {
        val file = file(ticket)
        if (!file.baseFile.exists()) return KeychainAnswer.None
        return try {
            val sealed = file.readFully()
            val key = key() ?: return KeychainAnswer.Unreadable
            val ivLength = sealed[0].toInt()
            val cipher = Cipher.getInstance("AES/GCM/NoPadding")
            cipher.init(Cipher.DECRYPT_MODE, key, GCMParameterSpec(128, sealed, 1, ivLength))
            cipher.updateAAD(ticket.toByteArray())
            KeychainAnswer.Stored(cipher.doFinal(sealed, 1 + ivLength, sealed.size - 1 - ivLength))
        } catch (_: AEADBadTagException) {
            KeychainAnswer.Unreadable
        } catch (_: IndexOutOfBoundsException) {
            KeychainAnswer.Unreadable
        } catch (_: GeneralSecurityException) {
            KeychainAnswer.NotNow
        } catch (_: IOException) {
            KeychainAnswer.NotNow
        } catch (_: RuntimeException) {
            KeychainAnswer.NotNow
        }
    }

    override fun tickets(): List<String>? =
        folder.list()?.filter { name -> name.length == 32 && name.all { it in '0'..'9' || it in 'a'..'f' } }

    override fun forget(ticket: String) = file(ticket).delete()
}
