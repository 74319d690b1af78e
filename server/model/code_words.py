"""The words by which mail in twenty languages names codes and numbers of other kinds. Data, and no rule.

Parts of regular expressions in lower case: English first, then zh ja ko de fr es pt it ru pl tr ar hi vi id th nl uk
cs.
A word that begins with a word boundary is one of a language that sets spaces.
"""

# What names a code.
CODES = (
    *(r"\bcodes?\b(?!-\w)", r"\botp\b", r"\bpin\b", r"\bone[- ]time\b", r"\bpasswords?\b"),
    *(
        r"\b2fa\b",
        r"\btoken\b",
        r"\b(?:m|i|e|sms|push|chip|photo)?-?tan\b",
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
        r"\bkennwort\b",
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
        r"\bкод(?:а|у|ом)?\b",
        r"\bпарол\w{1,2}\b",
        r"\bkod(?:u|em|ów)?\b",
        r"\bhasł[oa]\b",
        r"\b\w*kod(?:u|unuz|unu|um)?\b",
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
        r"\bkód(?:u|em)?\b",
        r"\bheslo\b",
    ),
)
# What names another number, or a code of another kind.
OTHERS = (
    r"\b(?:zip|postal|post|promo|promotion(?:al)?|discount|coupon|voucher|gift|error|status|country|area|source|bar"
    r"|qr|dress)"
    r"[- ]?codes?\b",
    r"\b(?:invoice|order|item|customer|product|sort|swift|referral|invite|class|exit|dial(?:l?ing)?|colou?r)"
    r"[- ]?codes?\b",
    r"\b(?:course|module|subject|booking|reservation|gift[- ]?card|pick-?up|collection|locker|tracking|license"
    r"|licence|redemption|ticket|record|tax|hs|naics"
    r"|buchungs?|reservierungs?|boekings?|reserverings?)[- ]?codes?\b",
    r"\b(?:code de réservation|código de (?:la )?reserva|codice (?:di )?prenotazione|kode booking|kode pemesanan"
    r"|mã đặt (?:chỗ|vé|phòng))\b",
    r"\b(?:kod rezerwacji|rezervační kód|rezervasyon kodu\w*|код бронирования|код бронювання|localizador"
    r"|buchungs?nummer|trace id)\b",
    "取件码",
    "提货码",
    "取餐码",
    "取票码",
    "予約コード",
    "예약 ?코드",
    *(
        r"\border\b",
        r"\binvoice\b",
        r"\bphone\b",
        r"\btel\b",
        r"\btelephone\b",
        r"\bcall\b",
        r"\bfax\b",
        r"\btracking\b",
        r"\bticket\b",
    ),
    *(
        r"\bcase\b",
        r"\btotal\b",
        r"\bprice\b",
    ),
    *(
        r"\bending in\b",
        r"\breference\b",
        r"\bref\b",
        r"\bbooking\b",
        r"\bcopyright\b",
        "©",
        r"\bsave\b",
    ),
    *(
        r"\bflight\b",
        r"\bextension\b",
        r"\bamount\b",
    ),
    *(
        r"\bsku\b",
        r"\bserial\b",
        r"\bpo box\b",
        r"\bbalance\b",
        r"\bpoints\b",
    ),
    *(
        "订单",
        "訂單",
        "编号",
        "編號",
        "单号",
        "發票",
        "发票",
        "电话",
        "電話",
        "金额",
        "金額",
        "邮编",
        "郵編",
        "优惠码",
        "優惠碼",
        "折扣码",
    ),
    *(
        "尾号",
        "尾號",
        "余额",
        "客服",
        "地址",
        "致电",
        "货到",
        "注文番号",
        "予約番号",
        "会員番号",
        "請求書",
        "クーポンコード",
        "郵便番号",
    ),
    *(
        "〒",
        "料金",
        "合計",
        "振込",
        "ポイント",
        "お問い合わせ",
        "주문 ?번호",
        "예약 ?번호",
        "회원 ?번호",
        "쿠폰 ?코드",
        "우편 ?번호",
    ),
    *("끝자리", "고객센터", "문의", "전화", "요금", "결제", "적립금", "할인 ?코드"),
    *(
        r"\bbestell\w*",
        r"\brechnung\w*",
        r"\b(?:gutschein|rabatt|aktions|promo|gewinn|post|fehler|artikel|länder)-?codes?\b",
        r"\bplz\b",
    ),
    *(
        r"\bkunden\w*",
        r"\btelefon\w*",
        r"\bblz\b",
        r"\bbetrag\b",
        r"\brückfragen\b",
        r"\bpostleitzahl\b",
    ),
    *(
        r"\bcode[- ]?(?:postal|promo|barres?|barre|de la porte|article|client|couleur|réduction|de réduction)\b",
        r"\bcommande\b",
    ),
    *(
        r"\bfacture\b",
        r"\btél\b",
        r"\btéléphone\b",
        r"\bmontant\b",
    ),
    *(
        r"\bcódigo (?:postal|promocional|de (?:barras|descuento|vestimenta|desconto|rastreio|error|área))",
        r"\bpedido\b",
    ),
    *(
        r"\bfactura\b",
        r"\bteléfono\b",
        r"\bimporte\b",
    ),
    *(
        r"\bcep\b",
        r"\bfatura\b",
        r"\bcupom\b",
        r"\bvalor\b",
        r"\btelefone\b",
    ),
    *(
        r"\bcodice (?:sconto|fiscale|postale|promo(?:zionale)?|a barre|cliente|articolo)",
        r"\bordine\b",
        r"\bfattura\b",
        r"\bcap\b",
    ),
    *(r"\btelefono\b", r"\bimporto\b", r"\bassistenza\b", r"\btotale\b"),
    *(
        r"\bпромо-?код\w*",
        r"\bкод (?:валюты|товара|города|региона|ошибки|знижки)",
        r"\bзаказ\w*",
        r"\bсч[её]т\w*",
    ),
    *(
        r"\bтелефон\w*",
        r"\bиндекс\w*",
        r"\bкабинет\w*",
        r"\bподдержка\b",
        r"\bсумм\w*",
        r"\bадрес\b",
        "№",
    ),
    *(
        r"\bkod (?:rabatowy|pocztowy|promocyjny|kreskowy|błędu|kraju)",
        r"\bzamówieni\w*",
        r"\bfaktur\w*",
        r"\btel\.",
    ),
    *(r"\bkwot\w*", r"\bgabinet\b", r"\binfolinia\b", r"\bulica\b", r"\bul\."),
    *(
        r"\b(?:indirim|posta|promosyon|kupon|hata|alan|ürün) kodu\w*",
        r"\bsipariş\w*",
        r"\bmüşteri\b",
        r"\btutar\b",
    ),
    *(
        r"\bdestek\b",
        r"\bno\b",
        "كود الخصم",
        "رمز بريدي",
        "الرمز البريدي",
        "رقم الطلب",
        "فاتورة",
        "هاتف",
        "اتصل",
    ),
    *(
        "المنتهية",
        "المبلغ",
        "بمبلغ",
        "कूपन कोड",
        "पिन कोड",
        "डिस्काउंट कोड",
        "ऑर्डर",
        "चालान",
        "ग्राहक",
        "राशि",
        "फोन",
    ),
    *(
        "खाते",
        "संदर्भ",
        "हेल्पलाइन",
        "कमरा",
        r"\bmã (?:giảm giá|đơn hàng|khuyến mãi|bưu chính|khách hàng|vạch)",
        r"\bđơn hàng\b",
    ),
    *(
        r"\bhóa đơn\b",
        r"\bkhách hàng\b",
        r"\bđiện thoại\b",
        r"\btổng đài\b",
        r"\bsố tiền\b",
        r"\bsố cuối\b",
    ),
    *(
        r"\bkode (?:pos|promo|diskon|kupon|barang|negara)",
        r"\bpesanan\b",
        r"\bfaktur\b",
        r"\bpelanggan\b",
    ),
    *(r"\btelepon\b", r"\bjumlah\b", r"\brekening\b", r"\bberakhiran\b", r"\bbantuan\b", r"\bruang\b", r"\bnomor\b"),
    *(
        "โค้ดส่วนลด",
        "รหัสไปรษณีย์",
        "รหัสส่วนลด",
        "คำสั่งซื้อ",
        "ใบแจ้งหนี้",
        "ลูกค้า",
        "โทร",
        "จำนวน",
        "ลงท้าย",
        "ยอดรวม",
    ),
    *(
        r"\b(?:kortings?|actie|post|fout|land|artikel)-?code\b",
        r"\bbestel\w*",
        r"\bfactuur\b",
        r"\bklant\b",
        r"\bbedrag\b",
    ),
    *(
        r"\brekening\b",
        r"\bhulp\b",
        r"\bзамовлення\b",
        r"\bрахунок\b",
        r"\bпідтримка\b",
    ),
    *(r"\bіндекс\w*", r"\bкабінет\b", r"\bслевов\w*", r"\bslevový kód\b", r"\bpsč\b", r"\bobjednávk\w*"),
    *(
        r"\bzákazník\b",
        r"\bčástk\w*",
        r"\blinka\b",
        r"\bmístnost\b",
        r"\bcelkem\b",
        r"\bpoštovní kód\b",
    ),
)
# What names the number that it touches, with or without "number", "no." and the like between them.
NEAR = (
    r"accounts?|customer|ring|dial|card|member(?:ship)?|page|port|street|chapter|build|room|suite|seats?|model"
    r"|version|section",
    r"issue|bug|article|line|row|gate|floor|apt|apartment|unit|step|lot|bus|train|release|rfc|iso|bay|platform"
    r"|terminal|channel",
    r"zone|group|lesson|season|episode|vol(?:ume)?|fig|table|appendix|locker|licen[cs]e|policy|meeting|track|sample"
    r"|patient|store",
    r"konto|kunden|seite|client|compte|carte|salle|cliente|cuenta|tarjeta|sala|ayuda|conta|cartão|ajuda|conto|carta"
    r"|stanza|zimmer",
    r"hesap|oda|koltuk|tài khoản|phòng|ghế|pas|kamer|stoel|účet|karta|sedadlo|клиент\w*|клієнт\w*|kart\w*|klient\w*"
    r"|карт[аыуо]\w*",
    r"картка|место|місце|miejsce|sitz|siège|asiento|assento|posto|kursi|vorgang|dossier|version",
)
NEAR_UNSPACED = "บัญชี|ห้อง|ที่นั่ง|حساب|غرفة|مقعد|सीट"
NEAR_LINKS = r"number|numbers|no|nr|n|num|id|ending|in|with|us|at|on|to|is|nummer|número|numero|numéro|numer|номер"
r"|final|xx|terminada|de|se|con|em"
# What names a booking where a mail is about one, and what tells that it is.
BOOKED = r"\bconfirmation (?:code|number|no\b|#)"
BOOKING = (
    r"\b(?:check-?in|itinerary|reservations?|flights?|boarding|passengers?|guests?|departures?|arrival|hotel"
    r"|nights?|e-?ticket|gate"
    r"|seat|stay|trip|booking|room|table for)\b"
)
# What a mail calls a code by its form alone.
NUMBERS = (
    r"numbers?|digits?|characters?|zahl|ziffern?|zeichen|chiffres?|nombre|numéros?|números?|dígitos?|numeri|numero"
    r"|cifre|числ[оа]|цифр[ыі]|"
    r"liczb[ęy]|cyfry|sayı(?:yı)?|angka|getal|cijfers?|čísl[oa]|số"
)
# What asks to enter a code, in front of it and behind it; what for.
ENTER_BEFORE = (
    *(
        r"\b(?:enter|type(?: in)?|use|input|submit|copy|paste)\b",
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
ENTER_AFTER = (r"\b(?:ein|eingeben)\b", "を入力", "を ?入力", "[을를] ?입력", "दर्ज करें", r"\bgirin\b", r"\bin\b(?= om)")
PURPOSE = (
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
    r"is|are|ist|lautet|est|es|é|è|(?<=[jn]y )to|(?<=kod )to|(?<=owe )to|(?<=sło )to|jest|adalah|है|هو|هي|là|je|below"
)
ARTICLES = "the following|the|le|la|el|il|lo|o|der|die|das|siguiente|suivant|seguente|seguinte"
# What makes a number an example.
LIKE = r"like|such as|e\.g\.?|for example|wie|z\.b\.?|comme|como|come|jak|типа|например"
# What says what a code is for, between its word and what leads up to it.
FOR = r"for|to|für|zur|zum|pour|para|per|na|do|voor|pro|k|для|на|за|por|cho|untuk|için|لـ|के लिए|สำหรับ"
LED_UP_TO_UNSPACED = "คือ|は|为|為|是|는|은"
AT_A_TIME = "at|um|à|a las|às|alle|в|о|o|saat|lúc|pukul|om|ve|by|until|before|bis"
# What makes a number an amount, a span of time, points or a part of an address.
UNITS = (
    r"€|\$|£|¥|₹|₽|₴|%|‰|°|eur\b|usd|gbp|euros?\b|kr\b|kč|zł|pln\b|czk|руб|р\.|грн|гривень|tl\b|円|元|块|원|đồng|vnd"
    r"|บาท|ريال|रुपये|"
    r"reais|dollars?\b|pounds?\b|pts\b|points?\b|punkte|puntos|pontos|punti|punktów|балл|бал|bodů|puan|نقطة|अंक"
    r"|điểm|poin\b|คะแนน|"
    r"ポイント|分钟|分鐘|min\b|minut|stunden|hours?\b|days?\b|seconds?\b|年|月|日|时|時|년|월|일|시|점|uhr\b|h\b|km\b|kg\b|mb\b|gb\b"
    r"|kb\b|"
    r"px\b|ms\b|года?\b|року\b|rok|yıl|people|users|items|characters|digits|位|桁|자리"
)
