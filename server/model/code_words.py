"""The words by which mail in twenty languages names codes and numbers of other kinds. Data, and no rule.

Parts of regular expressions in lower case: English first, then zh ja ko de fr es pt it ru pl tr ar hi vi id th nl uk
cs.
A word that begins with a word boundary is one of a language that sets spaces.
"""

# What names a code.
CODES = (
    # A second step, a password for one use, a key that activates: no word for a code is in them.
    r"\b(?:two|2)-(?:step|factor)(?: (?:verification|authentication))?\b",
    r"\b(?:security|verification|authentication|challenge) (?:number|phrase|word)\b",
    r"\bchallenge\b(?= ?:)",
    r"\bdouble authentification\b",
    r"\b(?:vérification|validation) en deux étapes\b",
    r"\busage unique\b",
    r"\bclé d['’](?:activation|accès)\b",
    r"\b(?:verificación|autenticación) (?:en dos pasos|de dos factores)\b",
    r"\bun solo uso\b",
    r"\b(?:verificação|autenticação) (?:em duas etapas|de dois fatores|em dois passos)\b",
    r"\b(?:uso único|utilização única)\b",
    r"\b(?:chave|chiave) (?:de|di) (?:ativação|acesso|segurança|confirmação|attivazione|accesso|sicurezza)\b",
    r"\b(?:verifica|autenticazione) (?:in due passaggi|a due fattori)\b",
    r"\bmonouso\b",
    r"\b\w*(?:schlüssel|ziffern|faktor-authentifizierung|stufige anmeldung)\b",
    r"\b(?:двух|дво)(?:этапн|етапн|фактор|ступен)\w+(?: \w+)?",
    r"\b(?:одноразов|проверочн|перевірочн)\w+(?: \w+)?",
    r"\bключ\w* (?:активации|доступа|активації|доступу)\b",
    r"\b(?:dwu|dvou)(?:etapow|składnikow|stopniow|fázov|faktorov|stupňov)\w*(?: \w+)?",
    r"\b(?:jednorazow|jednorázov)\w+(?: \w+)?",
    r"\bklucz\w* aktywac\w+|\baktivační klíč\w*",
    r"\b(?:iki (?:adımlı|aşamalı|faktörlü)|2 adımlı) doğrulama\b",
    r"\btek kullanımlık\b(?: \w+)?",
    r"\b(?:hai|2) (?:bước|lớp|yếu tố)\b",
    r"\bdùng một lần\b",
    r"\b(?:verifikasi|autentikasi) (?:dua|2) (?:langkah|faktor)\b",
    r"\bsekali pakai\b",
    r"\b(?:tweestaps|tweefactor)\w*|\b(?:activerings|toegangs|beveiligings)sleutel\b",
    r"\beenmalig\w*(?: \w+)?",
    "(?:两步|兩步|双重|雙重|二次)(?:验证|驗證|认证|認證)(?:数字|數字)?|[动動][态態]密[码碼]|一次性密[码碼]",
    "[验驗][证證](?:数字|數字|号码|號碼)|安全(?:代码|数字)",
    "(?:二段階|2段階|二要素)認証|本人認証(?:番号)?|ワンタイム(?:パスワード|パス)?|(?:アクティベーション|セキュリティ|アクセス|ライセンス)キー|再設定キー|照合番号",
    "(?:2|두) ?단계 인증(?: ?번호)?|일회용|otp 번호|(?:인증|보안) ?숫자",
    "خطوتين|لمرة واحدة|الرقم السري|(?:رقم|أرقام) التحقق|مفتاح التفعيل",
    "वन ?टाइम|दो चरणों?|सत्यापन (?:संख्या|अंक)",
    r"पिन(?! ?कोड)|พิน|핀 ?번호|\bп[іи]н(?:-?код\w*)?\b",
    "(?:この|次の|以下の|下記の)(?:番号|数字)|(?:以下|下列|如下)(?:数字|數字)",
    "สองขั้นตอน|สองชั้น|ใช้ครั้งเดียว",
    *(r"\bcodes?\b(?!-\w)", r"\botp\b", r"\bpin\b", r"\bone[- ]time\b", r"\bpasswords?\b"),
    *(
        r"\b2fa\b",
        r"\btoken\b",
        r"\b(?:m|i|e|sms|push|chip|photo|mobile|smart|app|secure)?-?tan\b",
        r"\bpasscode\b",
        r"\b(?:activation|access|security|login) key\b",
        r"\bconfirmation number\b",
        r"\bverification(?: number)?\b(?! (?:link|e-?mail|is not))",
    ),
    *(
        "验证码",
        "驗證碼",
        "校验码",
        "校驗碼",
        "动态码",
        "動態碼",
        "确认码",
        "確認碼",
        "激活码",
        "认证码",
        "認證碼",
        "口令",
        "密码[是为：:]",
    ),
    *(
        "密碼[是為：:]",
        "授权码",
        "(?<![号號编編代条條维維尺邮郵源页頁])[码碼](?=[：:是为為])",
        "随机码",
        "隨機碼",
        "安全码",
        "安全碼",
        "コード",
        "認証番号",
        "確認番号",
        "認証キー",
        "確認キー",
        "暗証番号",
        "パスワード",
        "인증 ?번호",
        "인증 ?코드",
    ),
    *(
        "확인 ?코드",
        "코드",
        "보안 ?코드",
        "비밀번호",
        "확인 ?번호",
        r"\b\w*codes?\b(?!-\w)",
        r"\b\w*kennwort\b",
        r"\b\w*passwort\b",
    ),
    *(
        r"\bmot de passe\b",
        r"\bpalavra-passe\b",
        r"\bcódigos?\b",
        r"\bcodigos?\b",
        r"\bclave\b",
        r"\bcontraseña\b",
        r"\bsenha\b",
        r"\bcodic[ei]\b",
    ),
    *(
        r"\bкод(?:а|у|ом|е|ы|ов|и|ів)?\b",
        r"\bпарол\w{1,2}\b",
        r"\bkod(?:u|em|ów|zie|y)?\b",
        r"\bhasł[oa]\b",
        r"\b\w*kod(?:u|un|unu|um|umuz|unuzu?|udur|unuzdur|uyla|unuzla|la)?\b",
    ),
    *(
        r"\bşifre\w*",
        "رمز",
        "كود",
        "كلمة المرور",
        "كلمة مرور",
        "कोड",
        "ओटीपी",
        "पासवर्ड",
        r"\bmã\b",
        r"\bmật khẩu\b",
        r"\bkode\b",
    ),
    *(
        r"\bkata sandi\b",
        r"\bsandi\b",
        "รหัส",
        "โค้ด",
        r"\b\w*wachtwoord\b",
        r"\bpincode\b",
        r"\bkód(?:u|em|y|ů)?\b",
        r"\bheslo\b",
    ),
)
# What a mail calls a code by its form alone.
NUMBERS = (
    r"letters|lettres|letras|lettere|buchstaben|буквы|літери|litery|písmena|harfler|huruf|chữ|value|string|phrase|zahl|numbers?|digits?|characters?|ziffern?|zeichen|chiffres?|nombre|numéros?|números?|dígitos?|numeri|numero"
    r"|cifre|числ[оа]|цифр[ыі]|"
    r"liczb[ęy]|cyfry|sayı(?:yı)?|angka|getal|cijfers?|čísl[oa]|số"
)
# What asks to enter a code, in front of it and behind it; what for.
ENTER_BEFORE = (
    r"\b(?:enter(?:ing)?|type in|drop|typing|key in|punch in|pop)\b",
    r"\b(?:tippe|tipp|eintippen|kopiere|kopieren sie|verwende|nutze|benutze|nenne|nennen sie)\b",
    r"\b(?:recopiez|copiez|collez|indiquez|renseignez|composez|utilise|tape|saisis)\b",
    r"\b(?:pon|ponga|pulsa|copia|pega|indica|indique|teclee|escriba|introduzca|ingresá|usá)\b",
    r"\b(?:use|copie|cole|preencha|escreva|insere|introduz|digita|coloque|informar)\b",
    r"\b(?:scrivi|incolla|inserire|inserisca|digiti|usare|utilizzare|immetta)\b",
    r"\b(?:укажите|наберите|вставьте|впишите|скопируйте|введи|напишите)\b",
    r"\b(?:вкажіть|наберіть|вставте|впишіть|скопіюйте|введи)\b",
    r"\b(?:przepisz|wklej|skopiuj|wprowadź|podać|wpisać)\b",
    r"\b(?:opište|opiš|vložte|zkopírujte|napište|vyplňte|použij|uveďte)\b",
    r"\b(?:kullan|yazın|yapıştırın|kopyalayın|tuşlayın)\b",
    "اكتب|انسخ|الصق|أدخلي|اكتبي|ادخلي",
    r"\b(?:gõ|điền|dán|sao chép)\b",
    r"\b(?:isikan|tempel|tempelkan|salin|ketikkan|masukan)\b",
    "พิมพ์|ป้อน|วาง|คัดลอก",
    r"\b(?:gebruik|plak|kopieer|toets)\b",
    "[请請]用|填写|填寫|填入|粘贴|貼上|复制|複製|键入|鍵入",
    *(
        r"\b(?:enter|type(?: in)?(?! ?:)|use|input|submit|copy|paste)\b",
        r"\b(?:verwenden sie|nutzen sie|utilisez|utiliza|utilice|usa|utilize|utilizza|используйте|використайте|użyj"
        r"|kullanın|استخدم|gunakan|dùng"
        r"|gebruik|použijte)\b",
        "ใช้",
        "使用",
        "输入",
        "輸入",
        r"\b(?:geben sie|gib|eingeben|tragen sie|trage|tippen sie)(?: bitte)?\b",
        r"\b(?:entrez|saisissez|tapez)\b",
    ),
    *(r"\b(?:escribe|introduce|introduzca|ingresa|ingrese|teclea)\b", r"\b(?:informe|digite|insira|introduza)\b"),
    *(
        r"\b(?:digita|inserisci|immetti)\b",
        r"\bвведите\b",
        r"\b(?:podaj|wpisz|wprowadź)\b",
        "أدخل",
        "ادخل",
        r"\bnhập\b",
    ),
    *(r"\b(?:ketik|masukkan)\b", "กรอก", "ใส่", r"\b(?:typ|voer|vul)\b", r"\bвведіть\b", r"\b(?:zadejte|zadej)\b"),
)
ENTER_AFTER = (
    r"\b(?:yazın|tuşlayın|yapıştırın|kullanın|girerek|girmeniz)\b",
    "を使って|[へにを][^。]{0,14}(?:入力|記入|貼り|打ち|コピー)",
    "[을를에] ?(?:입력|적|붙여|복사|사용)",
    "(?:डालें|लिखें|टाइप करें|भरें|डालकर)",
    r"\b(?:ein|eingeben)\b",
    "を入力",
    "を ?入力",
    "[을를] ?입력",
    "दर्ज करें",
    r"\bgirin\b",
    r"\bin\b(?= om|\.?$)",
)
PURPOSE = (
    r"\b(?:pair|link(?:ing)? your|it's (?:really )?you|koppel|verbinde|associer|appair|vincul|empare"
    r"|emparelh|associa|abbina)",
    r"\b(?:привяз|подключ|підключ|прив['’]яз|parowa|paruj|połącz|spárov|párov|eşleştir|ghép nối|hubungkan)",
    "ربط|أكد|जोड़|เชื่อมต่อ|サインイン|変更|連携|绑定|配对|配對|연결|기기",
    r"\b(?:authori[sz]|approv|reset|unlock|continu|proceed|pair|registr|releas|valid|secur)",
    r"\b(?:freigeb|freigab|freischalt|einlogg|login|zurücksetz|fortfahr|abschlie|autoris|sicher)",
    r"\b(?:autoris|authentif|réinitialis|finalis|sécuri|inscri|termin|identifi)",
    r"\b(?:autori[zc]|entra|firma|confirm|restablec|complet|aprob|valida|segur|inici|registr|continua)",
    r"\b(?:autoriz|confirm|verific|acess|redefin|conclu|aprova|valida|segur|login|cadastr)",
    r"\b(?:autorizz|conferma|entra|reimpost|complet|convalid|sicur|login|registr|accesso)",
    r"\b(?:подтверж|авториз|актив|сброс|операц|завершить|безопасн|провер|регистр)",
    r"\b(?:підтвердж|авториз|актив|скид|заверш|безпек|перевір|реєстр)",
    r"\b(?:zatwierd|autoryz|potwierd[zź]|aktyw|zreset|logow|dokończ|bezpiecz|rejestr)",
    r"\b(?:schvál|autoriz|aktiv|obnov|dokonč|přihlaš|bezpeč|registr|potvr)",
    r"\b(?:onay|etkinleştir|sıfırla|tamamla|doğrula|güven|kayıt|oturum)",
    "تسجيل|إتمام|إكمال|تفعيل|التحقق|لتحويل|الموافقة|أمان",
    "सक्रिय|रीसेट|सुरक्षा|पंजीकर|अधिकृत|लॉगिन|लॉग इन",
    r"\b(?:xác|kích hoạt|hoàn tất|đặt lại|bảo mật|đăng ký|phê duyệt)",
    r"\b(?:menyetujui|otoris|aktif|mengaktif|atur ulang|keamanan|daftar|menyelesai|login)",
    "เปิดใช้งาน|ดำเนินการ|ตั้งรหัส|อนุมัติ|ความปลอดภัย|ลงทะเบียน",
    r"\b(?:autoris|activ|goedkeur|wijzig|voltooi|aanmeld|veilig|registr|log)",
    "激活|授权|授權|重置|重設|绑定|綁定|安全|注册|註冊|提现|转账|轉帳|付款",
    "再設定|完了|手続|振込|お支払|本人|セキュリティ",
    "승인|등록|완료|재설정|보안|가입|이체",
    *(
        r"\b(?:confirm|verif|sign|log|activat|authenticat|authentifi|finish|complet)",
        "验证",
        "驗證",
        "确认",
        "登录",
        "登入",
        "確認",
        "登録",
        "認証",
    ),
    *(
        "ログイン",
        "인증",
        "확인",
        "로그인",
        "본인",
        r"\b(?:bestätig|aktivier|anmeld|verifizier)",
        r"\b(?:confirm|valid|connect|connex|vérifi)",
    ),
    *(
        r"\b(?:iniciar|verific|acced|activ)",
        r"\b(?:entrar|ativ)",
        r"\b(?:conferm|verific|acced)",
        r"\b(?:подтвер|вход|войти)",
    ),
    *(
        r"\b(?:potwierdz|zalog|weryfik)",
        r"\b(?:onayla|doğrula|giriş)",
        "تأكيد",
        "لتأكيد",
        "تسجيل",
        "पुष्टि",
        "सत्याप",
        "लॉग",
    ),
    *(
        r"\b(?:xác|đăng nhập)",
        r"\b(?:konfirm|mengonfirm|verifik|masuk)",
        "ยืนยัน",
        "เข้าสู่",
        r"\b(?:bevestig|inlog|verifi)",
    ),
    *(r"\b(?:підтвер|увійти|вхід)", r"\b(?:potvrz|ověř|přihlá)"),
)
# What stands between a word and its code.
CUES = (
    r"is|are|ist|lautet|est|es|é|è|e'|to|je|jest|là|adalah|คือ|هو|هي|है|[是为為はが:：=＝＞>«»“”„\"'‘’「『【\[（(—–*\s-]|"
    r"는|은|입니다|below|here|voici|это|це"
)
# What leads up to a code at some distance from its word, and what leads up to a time of day.
LED_UP_TO = (
    r"is|are|sono|sont|son|são|sind|lauten|zijn|są|jsou|ist|lautet|est|es|é|è|(?<=[jn]y )to|(?<=kod )to|(?<=owe )to"
    r"|(?<=sło )to|jest|adalah|है|هو|هي|là|je|below"
)
ARTICLES = "the following|the|le|la|el|il|lo|o|der|die|das|siguiente|suivant|seguente|seguinte"
# What makes a number an example.
LIKE = r"like|such as|e\.g\.?|for example|wie|z\.b\.?|comme|como|come|jak|типа|например"
# What says what a code is for, between its word and what leads up to it.
FOR = r"for|to|für|zur|zum|pour|para|per|na|do|voor|pro|k|для|на|за|por|cho|untuk|için|لـ|के लिए|สำหรับ"
LED_UP_TO_UNSPACED = "คือ|は|为|為|是|는|은"
AT_A_TIME = "at|um|à|a las|às|alle|в|о|o|saat|lúc|pukul|om|ve|by|until|before|bis"
# What a code is for, as a clause or a phrase that says what the reader is to do next.
TO_DO = (
    r"\bto (?:confirm|verify|sign|log|activate|authenticate|authori[sz]e|approve|finish|complete|continue|proceed"
    r"|get in|unlock|reset|validate|release|pair|register)\b",
    r"\bzu[mr] (?:einloggen|anmelden|anmeldung|bestätig|freigabe|freischalt|verifizier|aktivier|registrier|login)",
    r"\bum [^.]{0,60}\bzu (?:bestätigen|aktivieren|verifizieren|autorisieren)|\b(?:anzumelden|einzuloggen"
    r"|freizugeben|abzuschließen|freizuschalten|zurückzusetzen)\b",
    r"\b(?:pour|de quoi) (?:vous |te |s')?(?:connecter|confirmer|valider|vérifier|activer|finaliser|continuer"
    r"|terminer|autoriser|réinitialiser|accéder)\b",
    r"\bpar[a]? (?:confirmar|verificar|validar|iniciar|entrar|acceder|activar|autorizar|completar|continuar|finalizar"
    r"|terminar|firmar|restablecer|aprobar|acessar|aceder|ativar|concluir|redefinir|aprovar)\b",
    r"\bpra (?:confirmar|verificar|validar|entrar|acessar|ativar|autorizar|concluir|continuar)\b",
    r"\bper (?:confermare|verificare|convalidare|accedere|entrare|attivare|autorizzare|completare|continuare"
    r"|reimpostare|concludere)\b",
    r"\b(?:чтобы|для) (?:подтверд|подтверж|войти|входа|заверш|авториз|актив|продолж|сброс|смены|одобр)\w*",
    r"\b(?:щоб|для) (?:підтверд|підтвердж|увійти|входу|заверш|авториз|актив|продовж|скид|зміни)\w*",
    r"\b(?:aby|żeby|by) (?:potwierdzić|zalogować|się zalogować|zatwierdzić|zweryfikować|aktywować|dokończyć"
    r"|kontynuować|autoryzować|zresetować)\b",
    r"\bdo (?:logowania|potwierdzenia|autoryzacji|aktywacji|weryfikacji)\b",
    r"\b(?:pro|k|ke) (?:potvrzení|přihlášení|ověření|aktivaci|dokončení|autorizaci|schválení|obnov\w+)\b",
    r"\b(?:onaylamak|doğrulamak|giriş yapmak|tamamlamak|etkinleştirmek|sıfırlamak|devam etmek|girmek) (?:için|üzere)\b",
    "ل(?:تأكيد|تسجيل|إتمام|إكمال|تفعيل|لتحقق|إعادة تعيين|متابعة|لمصادقة|لموافقة)",
    "(?:पुष्टि|सत्यापित|सत्यापन|लॉग ?इन|पूरा|सक्रिय|रीसेट|अधिकृत) ?(?:करने)? ?के लिए",
    r"\bđể (?:xác (?:nhận|minh|thực)|đăng nhập|hoàn tất|kích hoạt|tiếp tục|đặt lại|phê duyệt)",
    r"\buntuk (?:konfirmasi|mengonfirmasi|mengkonfirmasi|verifikasi|memverifikasi|masuk|login|menyelesaikan"
    r"|mengaktifkan|melanjutkan|menyetujui|otorisasi|mengatur ulang)\b",
    "เพื่อ(?:ยืนยัน|เข้าสู่ระบบ|ดำเนินการ|เปิดใช้งาน|ทำรายการ|ตั้งรหัส|อนุมัติ)",
    r"\bom\b[^.]{0,40}\bte (?:bevestigen|loggen|melden|verifiëren|activeren|voltooien|keuren|wijzigen|autoriseren"
    r"|resetten)\b",
)
# What makes a number the means of what a sentence asks to do.
WITH = r"with|mit|avec|met|con|com|z|s|se|с|з|dengan|bằng|ile|using"
# What asks to keep a code to oneself.
SECRET = (
    r"\b(?:do not|don't|never) (?:share|give|tell|disclose|forward|reveal)\b",
    r"\b(?:nicht|niemals|niemandem|nie)\b[^.]{0,30}(?:weiter|mitteil|weitergeb|verrat)",
    r"\bne (?:le |la |les )?(?:partagez|communiquez|divulguez|transmettez|donnez)\b",
    r"\b(?:no|nunca) (?:lo |la )?(?:compart|facilit|revel|divulg|des )",
    r"\b(?:não|nunca) (?:o |a )?(?:compartilh|partilh|inform|pass|revel|divulg)",
    r"\bnon (?:condivid|comunicar|rivelar|fornir)",
    r"(?:никому|ни с кем) не|не (?:сообщайте|передавайте|говорите|показывайте)",
    r"(?:нікому|ні з ким) (?:його |їх |цього )?не|не (?:повідомляйте|передавайте|кажіть|розголошуйте)",
    r"\b(?:nie (?:udostępniaj|podawaj|przekazuj|ujawniaj)|nikomu)\b",
    r"\b(?:nikomu|nesdělujte|nesdílejte|neposkytujte|nepředávejte)\b",
    r"\bpaylaşma|\bkimseye\b|\bkimseyle\b",
    "لا تشارك|لا تخبر|لا تعط|عدم مشاركة",
    "साझा न|न बताएं|किसी को न|शेयर न",
    r"\b(?:không chia sẻ|đừng chia sẻ|không cung cấp|tuyệt đối không)\b",
    r"\b(?:jangan|rahasia)\b",
    "ห้ามบอก|อย่าบอก|อย่าเปิดเผย|ห้ามเปิดเผย",
    r"\b(?:deel|geef)\b[^.]{0,30}\b(?:niemand|nooit|niet)\b|\bdeel nooit\b",
    "请勿|請勿|切勿|勿告|勿泄|勿洩|不要告诉|不要告訴",
    "他人に|教えないで|共有しない|伝えない",
    "타인에게|공유하지|알려주지|노출되지",
)
