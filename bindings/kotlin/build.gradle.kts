plugins {
    id("com.android.library") version "8.7.3"
    id("org.jetbrains.kotlin.android") version "2.1.0"
    id("org.jetbrains.kotlin.plugin.compose") version "2.1.0"
}

android {
    namespace = "org.sessioncap"
    compileSdk = 35
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
    buildFeatures.compose = true
    // `libraries.sh` puts the libraries of each architecture here.
    sourceSets["main"].jniLibs.srcDir("src/main/jniLibs")
}

kotlin.jvmToolchain(17)

dependencies {
    // 5.16.0 crashes on pages of 16 KB.
    api("net.java.dev.jna:jna:5.17.0@aar")
    implementation("com.squareup.okhttp3:okhttp:4.12.0")
    implementation(platform("androidx.compose:compose-bom:2024.12.01"))
    implementation("androidx.compose.material3:material3")
}
