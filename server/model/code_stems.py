"""Stems of the words that name codes or ask to enter them, in twenty languages. Data, and no rule.

Each word for a code, and each that asks to enter one, has one of these: mail without any is told to have no code. A
few characters are found, or not, at many times the speed of a pattern. Bars are between them; those that end with
white space are whole words.
"""

# Those that may be in text in ASCII.
PLAIN = (
    "scrivi|saisissez|zadejte|"
    "cod|kod|otp|enter |enter\n|entrez|saisi|digit|ingres|masukk|podaj|wpisz|paste|type |pin|pass|2fa|token|"
    "senha|clave|kennw|wachtw|sandi|heslo|one-time| key|one time|tan |tan:|tan\n|onfirm|onferm|verif|bevestig|"
    "sign in|sign-in|log in|login|inlog|geben sie|authori|authent|autori|approv|connecter|connexion|"
    "two-step|2-step|two-factor|2-factor|pop |drop |"
    "letters|"
    "etapas|pasos|passaggi|monouso|unico|chave|chiave|tweest|eenmal|einmal|sleutel|freigab|nutzen sie|"
    "verwenden|gebruik|tippe|typ |voer |vul |gib |tapez|copie|copia|kopier|introdu|inseri|escrib|teclea|utili|potvrd|"
    "potwierd|zatwierd|usa |informe|pon |jangan|paylas|konfirm|niemand|partage|compart|zaloguj|"
    "weryf|entrar|activ|ativa|attiv|aktiv|aktyw"
)
# The others.
WIDE = (
    "использ|використ|请用|請用|使って|사용|"
    "サインイン|この番号|次の番号|以下|下列|如下|पिन|พิน|핀|пін|пин|écran|saisissez|scrivi|nhập|введіть|"
    "验证|驗證|登录|登錄|安全|認証|本人|ワンタイム|ログイン|로그인|확인|일회용|провер|укаж|вкаж|набер|встав|впиш|скоп|сообщ|повідом|никому|"
    "нікому|potvr|opiš|napiš|vlož|použij|wprowad|przepisz|użyj|udostęp|kullan|yazın|tuşla|paylaş|kimse|اكتب|"
    "انسخ|استخدم|الرقم|مشارك|تشارك|डालें|लिखें|साझा|dùng|gõ |điền|chia sẻ|พิมพ์|ป้อน|ใช้|บอก|填|粘贴|貼上|使用|请勿|請勿|"
    "切勿|貼り|教えない|붙여|적어|타인|einloggen|clé|перев|подтвер|підтвер|етап|этап|разов|актив|etkinleş|kích ho|"
    "تفعيل|सक्रिय|เปิดใช้|ключ|doğrula|giriş|onay|ověř|přihl|fáz|jednorá|authentif|تحقق|تأكيد|خطوتين|सत्याप|पुष्टि|"
    "चरण|xác|bước|ยืนยัน|ขั้นตอน|码|碼|口令|コード|番号|キー|パスワード|入力|输入|輸入|인증|코드|번호|입력|確認|认证|код|парол|введ|código|"
    "contraseña|contrase|hasł|şifre|gir|رمز|كود|كلمة|أدخل|कोड|ओटीपी|पासवर्ड|दर्ज|mã|mật|nhập|รหัส|โค้ด|กรอก|"
    "kód|zadej|bestätig|vérifi|geben"
)
